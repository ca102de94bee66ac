from __future__ import annotations

import pytest
import torch
from torch import nn

from segroi.tv.data import CocoDataset
from segroi.tv.evaluate import detect, evaluate


class Oracle(nn.Module):
    """Answers with the truth of the dataset, in its order."""

    def __init__(self, dataset: CocoDataset, spoil: float = 0.0) -> None:
        super().__init__()
        self.device = nn.Parameter(torch.zeros(1))
        self.dataset, self.spoil, self.next = dataset, spoil, 0

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        outputs = []
        for _ in images:
            _, target = self.dataset[self.next]
            self.next += 1
            masks = target["masks"][:, None].float() * 0.9
            boxes = target["boxes"] + self.spoil
            scores = torch.full((len(boxes),), 0.8)
            labels = target["labels"]
            outputs.append({"boxes": boxes, "labels": labels, "scores": scores, "masks": masks})
        return outputs


@pytest.fixture
def dataset(squares):
    return CocoDataset(squares / "data.json", squares / "images")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_truth_gives_one(dataset, batch_size):
    numbers, results = evaluate(Oracle(dataset), dataset, batch_size=batch_size)
    assert numbers["box"]["AP"] == numbers["mask"]["AP"] == pytest.approx(1.0)
    assert {r["category_id"] for r in results} == {3, 40}, "the file's own category ids"


def test_shifted_boxes_cost_box_ap_alone(dataset):
    numbers, _ = evaluate(Oracle(dataset, spoil=2.0), dataset)
    assert numbers["mask"]["AP"] == pytest.approx(1.0)
    assert numbers["box"]["AP50"] == pytest.approx(1.0)
    assert numbers["box"]["AP"] < 0.7, "two px of twenty are an IoU of about 0.7"


def test_boxes_only(dataset):
    numbers, _ = evaluate(Oracle(dataset), dataset, kinds=("box",))
    assert list(numbers) == ["box"]


def test_detect_leaves_the_mode_alone(dataset):
    oracle = Oracle(dataset).train()
    output = detect(oracle, [dataset[0][0]])[0]
    assert oracle.training and output["masks"].dtype == torch.bool and output["masks"].ndim == 3
