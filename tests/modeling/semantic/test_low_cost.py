from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segroi.modeling.semantic.iou import ClassIoU
from segroi.modeling.semantic.low_cost import build_low_cost_segmenter, segmentation_loss

HALF = {"depth_multiplier": 0.5}
TABLE_4_2 = {
    "SqueezeNet": ({"encoder": "squeezenet"}, 732_243),
    "SqueezeNet FCN8": ({"encoder": "squeezenet", "steps": 1}, 740_470),
    "SqueezeNet stride 8": ({"encoder": "squeezenet", "output_stride": 8}, 732_243),
    "MobileNet": (HALF, 839_283),
    "MobileNet FCN16": ({**HALF, "steps": 1}, 849_942),
    "MobileNet FCN8": ({**HALF, "steps": 2}, 858_169),
    "MobileNet stride 16": ({**HALF, "output_stride": 16}, 839_283),
    "MobileNet stride 8": ({**HALF, "output_stride": 8}, 839_283),
}


def slim_count(module):
    """Parameters as the thesis counts them: with the moving statistics."""
    statistics = [v for k, v in module.named_buffers() if not k.endswith("num_batches_tracked")]
    return sum(v.numel() for v in [*module.parameters(), *statistics])


@pytest.mark.parametrize(("kwargs", "expected"), TABLE_4_2.values(), ids=TABLE_4_2)
def test_parameters_of_table_4_2(kwargs, expected):
    assert slim_count(build_low_cost_segmenter(**kwargs)) == expected


def test_squeezenet_fcn4_adds_a_second_step():
    fcn4 = build_low_cost_segmenter("squeezenet", steps=2)
    assert slim_count(fcn4) == 740_470 + 19 * 19 * 16 + 64 * 19 + 19


@pytest.mark.parametrize("kwargs", [k for k, _ in TABLE_4_2.values()], ids=TABLE_4_2)
@pytest.mark.parametrize("size", [(64, 96), (33, 65)])
def test_logits_have_the_size_of_the_image_and_everything_learns(kwargs, size):
    torch.manual_seed(0)
    model = build_low_cost_segmenter(**kwargs, num_classes=3).train()
    logits = model(torch.randn(1, 3, *size))
    assert logits.shape == (1, 3, *size)
    segmentation_loss(logits, torch.randint(0, 3, (1, *size))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("steps", [1, 2])
def test_decoder_needs_the_full_output_stride(steps):
    with pytest.raises(ValueError, match="must double from map to map"):
        build_low_cost_segmenter(**HALF, steps=steps, output_stride=16)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics(frozen):
    model = build_low_cost_segmenter(depth_multiplier=0.25, frozen_statistics=frozen).train()
    before = {k: v.clone() for k, v in model.named_buffers() if k.endswith("running_var")}
    model(torch.rand(2, 3, 64, 64))
    kept = [torch.equal(v, before[k]) for k, v in model.named_buffers() if k in before]
    assert all(kept) if frozen else not any(kept)
    assert all(p.requires_grad for p in model.parameters())


def test_sum_loss_is_summed_over_pixels_and_averaged_over_images():
    logits, labels = torch.randn(2, 4, 5, 6), torch.randint(0, 4, (2, 5, 6))
    labels[:, 0] = 255
    per_pixel = F.cross_entropy(logits[:, :, 1:], labels[:, 1:], reduction="none")
    torch.testing.assert_close(segmentation_loss(logits, labels), per_pixel.sum() / 2)
    mean = segmentation_loss(logits, labels, reduction="mean")
    torch.testing.assert_close(mean, per_pixel.mean())


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_only_ignored_pixels_give_a_zero_loss(reduction):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 4, 4), 255), reduction=reduction)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [({"encoder": "vgg"}, "among"), ({"steps": 3}, "0 to 2"), ({"steps": -1}, "0 to 2")],
)
def test_wrong_arguments(kwargs, text):
    with pytest.raises(ValueError, match=text):
        build_low_cost_segmenter(**kwargs)


def test_wrong_reduction():
    with pytest.raises(ValueError, match="sum or mean"):
        segmentation_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long(), reduction="max")


def test_export_with_dynamic_multiples_of_the_stride():
    model = build_low_cost_segmenter(depth_multiplier=0.25, steps=2, padding="symmetric").eval()
    size = {i: 32 * torch.export.Dim(name, min=3) for i, name in ((2, "rows"), (3, "columns"))}
    program = torch.export.export(
        model, (torch.randn(1, 3, 96, 128),), dynamic_shapes={"images": size}, strict=False
    )
    images = torch.randn(1, 3, 160, 96)
    torch.testing.assert_close(program.module()(images), model(images))


def test_iou_against_sets():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (3, 8, 8), generator=generator)
    predictions = torch.randint(0, 3, (3, 8, 8), generator=generator)
    labels[labels == 3] = 255
    counts = ClassIoU(4)
    for prediction, label in zip(predictions, labels):
        counts.update(prediction, label)
    iou, valid = counts.compute(), labels != 255
    for c in range(3):
        a, b = (predictions == c) & valid, (labels == c) & valid
        assert iou[c].item() == pytest.approx(((a & b).sum() / (a | b).sum()).item())
    assert iou[3].isnan()


def test_learns_a_square():
    torch.manual_seed(0)
    model = build_low_cost_segmenter(
        depth_multiplier=0.25, steps=2, num_classes=2, frozen_statistics=False, norm_momentum=0.1
    ).train()
    images, labels = torch.zeros(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.int64)
    labels[0, 16:48, 16:48] = labels[1, 8:32, 24:56] = 1
    images += labels[:, None] + 0.1 * torch.randn_like(images)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        segmentation_loss(model(images), labels, reduction="mean").backward()
        optimizer.step()
    counts = ClassIoU(2)
    counts.update(model(images).argmax(1), labels)
    assert counts.compute()[1] > 0.8
