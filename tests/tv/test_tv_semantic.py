import importlib.util
import json

import cv2
import numpy as np
import pytest
import torch

from segroi.cli.main import main
from segroi.tv.checkpoint import load_model
from segroi.tv.data import Draw
from segroi.tv.models import build_model
from segroi.tv.semantic import build_semantic, evaluate_semantic, load_encoder
from segroi.tv.semantic_data import CITYSCAPES, LabelDataset
from segroi.utils.run_record import read_rows
from segroi.utils.suggest import UsageError
from segroi.utils.visualisation import draw_classes

# facts of the thesis's Table 4.2, and the atrous strides of Table 4.1
ROWS = {
    "squeezenet_base": ("squeezenet_fcn", {"steps": 0}, 732_243),
    "squeezenet_fcn8": ("squeezenet_fcn", {}, 740_470),
    "squeezenet_stride8": ("squeezenet_fcn", {"steps": 0, "output_stride": 8}, 732_243),
    "mobilenet_base": ("mobilenet_v1_fcn", {"steps": 0}, 839_283),
    "mobilenet_fcn16": ("mobilenet_v1_fcn", {"steps": 1}, 849_942),
    "mobilenet_fcn8": ("mobilenet_v1_fcn", {}, 858_169),
    "mobilenet_stride16": ("mobilenet_v1_fcn", {"steps": 0, "output_stride": 16}, 839_283),
    "mobilenet_stride8": ("mobilenet_v1_fcn", {"steps": 0, "output_stride": 8}, 839_283),
}


@pytest.fixture
def scenes(tmp_path):
    """Six pictures of a bright square on a dark ground; the last row has no class."""
    rng = np.random.default_rng(0)
    for number in range(6):
        image = rng.integers(0, 60, (40, 48, 3), np.uint8)
        labels = np.zeros((40, 48), np.uint8)
        x, y = rng.integers(2, 20, 2)
        image[y : y + 18, x : x + 20] += 150
        labels[y : y + 18, x : x + 20] = 1
        labels[-1] = 255
        for folder, pixels in (("images", image), ("labels", labels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), pixels)
    (tmp_path / "classes.json").write_text('["ground", "square"]')
    return tmp_path


@pytest.mark.parametrize("row", ROWS)
def test_every_row_counts_what_the_thesis_prints_and_trains_a_step(row):
    name, arguments, count = ROWS[row]
    model = build_model(name, 19, **arguments).train()
    weights = sum(p.numel() for p in model.parameters())
    statistics = sum(b.numel() for n, b in model.named_buffers() if "running" in n)
    assert weights + statistics == count
    images = [torch.rand(3, 33, 64), torch.rand(3, 40, 50)]
    targets = [{"labels": torch.randint(0, 19, i.shape[-2:])} for i in images]
    model(images, targets)["loss_sem_seg"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        found = model.eval()(images)
    assert [f["semantic"].shape for f in found] == [(33, 64), (40, 50)]


@pytest.mark.parametrize("loss", ["sum", "mean"])
def test_neither_padding_nor_pixels_without_class_are_learnt(loss):
    torch.manual_seed(0)
    model = build_semantic(3, depth_multiplier=0.25, loss=loss).train()
    small, large = torch.rand(3, 32, 32), torch.rand(3, 64, 64)
    labels = torch.randint(0, 3, (32, 32))
    nothing = torch.full((64, 64), 255)
    alone = model([small], [{"labels": labels}])["loss_sem_seg"]
    both = model([small, large], [{"labels": labels}, {"labels": nothing}])["loss_sem_seg"]
    # padding reaches the borders of the small image, so that they differ a little
    torch.testing.assert_close(both * (2 if loss == "sum" else 1), alone, rtol=0.1, atol=0)


def test_a_size_resizes_and_the_answer_is_as_large_as_the_image():
    torch.manual_seed(0)
    model = build_semantic(3, depth_multiplier=0.25, size=32).eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-2:]))
    with torch.no_grad():
        found = model([torch.rand(3, 64, 90)])[0]["semantic"]
    assert found.shape == (64, 90) and seen == [(32, 64)]


def test_flips_move_labels_with_their_pixels(scenes):
    data = LabelDataset(scenes / "labels", scenes / "images")
    (image, target), (mirrored, other) = data[0], data[Draw(0, True)]
    assert torch.equal(mirrored, image.flip(-1))
    assert torch.equal(other["labels"], target["labels"].flip(-1))
    assert data.summary(target)["pixels"] == {"ground": 40 * 48 - 48 - 360, "square": 360}


def test_cityscapes_is_read_as_it_comes(tmp_path):
    for folder, endings in (
        ("gtFine/train/bonn", ("gtFine_labelTrainIds", "gtFine_instanceIds")),
        ("leftImg8bit/train/bonn", ("leftImg8bit",)),
    ):
        (tmp_path / folder).mkdir(parents=True)
        for ending in endings:
            pixels = np.full((8, 8), 18, np.uint8)
            cv2.imwrite(str(tmp_path / folder / f"bonn_000_{ending}.png"), pixels)
    data = LabelDataset(tmp_path / "gtFine/train", tmp_path / "leftImg8bit/train")
    assert len(data) == 1 and [c["name"] for c in data.categories] == list(CITYSCAPES)
    assert data[0][1]["labels"].eq(18).all()


def test_bad_data_is_named(scenes):
    labels, images = scenes / "labels", scenes / "images"
    with pytest.raises(UsageError, match="classes ground, square, the model a, b"):
        LabelDataset(labels, images, [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}])
    cv2.imwrite(str(labels / "0.png"), np.full((40, 48), 7, np.uint8))
    with pytest.raises(UsageError, match="0.png must hold 0 to 1 and 255, got 7"):
        LabelDataset(labels, images)[0]
    cv2.imwrite(str(labels / "0.png"), np.zeros((40, 48, 3), np.uint8))
    with pytest.raises(UsageError, match="one 8-bit channel"):
        LabelDataset(labels, images)[0]
    cv2.imwrite(str(labels / "0.png"), np.zeros((20, 48), np.uint8))
    with pytest.raises(UsageError, match="annotated as 20x48"):
        LabelDataset(labels, images)[0]
    (labels / "0.png").write_bytes(b"none")
    with pytest.raises(UsageError, match="cannot be read"):
        LabelDataset(labels, images)[0]
    (images / "3.png").unlink()
    with pytest.raises(UsageError, match="3.png has no image 3"):
        LabelDataset(labels, images)
    (scenes / "classes.json").write_text("{}")
    (labels / "3.png").unlink()
    with pytest.raises(UsageError, match="must be a list of 2 to 255 names"):
        LabelDataset(labels, images)
    (scenes / "classes.json").write_text('["a", "a"]')
    with pytest.raises(UsageError, match="names a class twice: a, a"):
        LabelDataset(labels, images)
    (scenes / "classes.json").unlink()
    with pytest.raises(UsageError, match="has no classes.json"):
        LabelDataset(labels, images)


def test_wrong_arguments_are_named(tmp_path):
    for arguments, text in (
        ({"encoder": "resnet"}, "encoder must be among"),
        ({"steps": 3}, "steps must be 0 to 2"),
        ({"loss": "max"}, "loss must be sum or mean"),
        ({"steps": 1, "output_stride": 8}, "strides"),
    ):
        with pytest.raises(UsageError, match=text):
            build_semantic(2, **arguments)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UsageError, match="of another network"):
        load_encoder(build_semantic(2, encoder="squeezenet").backbone, tmp_path / "w.pth")


def test_weights_of_torchvision_fill_squeezenet(tmp_path):
    from torchvision.models import squeezenet1_1

    weights = squeezenet1_1(weights=None).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    backbone = build_semantic(2, encoder="squeezenet").backbone
    load_encoder(backbone, tmp_path / "w.pth")
    state = backbone.state_dict()
    assert all(torch.equal(state[name], weights[name]) for name in state)


def test_scores_of_a_perfect_and_of_a_blind_model(scenes, tmp_path):
    data = LabelDataset(scenes / "labels", scenes / "images")
    model = build_semantic(2, depth_multiplier=0.25).eval()
    model.forward = lambda images: [{"semantic": data[next(turn)][1]["labels"].clamp(max=1)}]
    turn = iter(range(6))
    assert set(evaluate_semantic(model, data, tmp_path, "")["all"].values()) == {1.0}
    model.forward = lambda images: [{"semantic": torch.zeros(40, 48, dtype=torch.int64)}]
    scores = evaluate_semantic(model, data, tmp_path, "")
    ground = 1 - 360 / (39 * 48)
    assert scores["IoU"] == pytest.approx({"ground": ground, "square": 0.0})
    assert scores["all"]["mIoU"] == pytest.approx(ground / 2)
    assert scores["all"]["mACC"] == pytest.approx(0.5)
    assert scores["all"]["pACC"] == pytest.approx(ground)


def test_from_training_to_pictures(scenes, tmp_path, capsys):
    where = ["--data", str(scenes / "labels"), "--images", str(scenes / "images")]
    words = ["train", "--model", "mobilenet_v1_fcn", *where, "--output", str(tmp_path / "run")]
    words += ["--val-data", where[1], "--batch-size", "3", "--optimizer", "adamw", "--lr", "0.01"]
    words += ["--workers", "0", "--device", "cpu", "model_args.depth_multiplier=0.25"]
    words += ["model_args.loss=mean", "warmup=5"]
    assert main([*words, "--iterations", "20"]) == 0
    assert main([*words, "--iterations", "60", "--resume"]) == 0
    assert "pACC" in capsys.readouterr().out
    page = (tmp_path / "run/report.html").read_text()
    assert "mIoU" in page and "Labels and predictions" in page
    capsys.readouterr()
    assert main(["eval", "--weights", str(tmp_path / "run"), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["IoU"]) == {"ground", "square"}
    losses = [row["loss"] for row in read_rows(tmp_path / "run")]
    assert len(losses) == 60 and sum(losses[-5:]) < 0.8 * sum(losses[:5])
    model, info = load_model(tmp_path / "run/model_final.pth")
    assert info["iteration"] == 60 and [c["name"] for c in info["categories"]][1] == "square"
    picture = str(scenes / "images/0.png")
    words = [
        "predict",
        picture,
        "--weights",
        str(tmp_path / "run"),
        "--output",
        str(tmp_path / "o"),
    ]
    assert main(words) == 0
    (entry,) = json.loads((tmp_path / "o/predictions.json").read_text())
    assert sum(c["share"] for c in entry["classes"]) == pytest.approx(1, abs=1e-3)
    exported = str(tmp_path / "x.onnx")
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        export = ["export", "--weights", str(tmp_path / "run"), "--to", "onnx"]
        assert main([*export, "--output", exported, "--check", picture]) == 0
        files = ["--weights", exported, "--output", str(tmp_path / "p")]
        assert main(["predict", picture, *files]) == 0
        (same,) = json.loads((tmp_path / "p/predictions.json").read_text())
        assert same["classes"] == entry["classes"]
        assert main(["predict-many", str(scenes / "images"), *files]) == 2
    words[:2] = ["predict-many", str(scenes / "images")]
    assert main(words) == 2
    assert "segroi predict draws it" in capsys.readouterr().err


def test_a_class_that_is_nowhere_is_no_number(scenes, tmp_path, capsys):
    (scenes / "classes.json").write_text('["ground", "square", "moon"]')
    data = LabelDataset(scenes / "labels", scenes / "images")
    model = build_semantic(3, depth_multiplier=0.25).eval()
    model.forward = lambda images: [{"semantic": torch.zeros(40, 48, dtype=torch.int64)}]
    scores = evaluate_semantic(model, data, tmp_path, "")
    assert scores["IoU"]["moon"] == -1 and scores["IoU"]["square"] == 0
    assert "NaN" not in (tmp_path / "semantic.json").read_text()


def test_only_a_background_stays_without_colour():
    image, labels = np.full((40, 40, 3), 90, np.uint8), np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    corner, right = np.s_[-1, 0], np.s_[-1, -1]
    street = draw_classes(image, labels, ["road", "car"])
    assert (street[corner] != 90).any() and (street[right] != street[corner]).any()
    assert (draw_classes(image, labels, ["background", "car"])[corner] == 90).all()
