from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from tiny_run import TINY, tiny_arguments
from torch import nn
from torchvision.models import get_model
from torchvision.ops import MultiScaleRoIAlign

from segroi.modeling.roi_extractors import MultiScaleSubnetwork, SingleLevelRoIExtractor
from segroi.tv.backbones import BACKBONES, build_backbone, load_backbone_weights
from segroi.tv.models import MODELS, build_model
from segroi.tv.rcnn import RoIPool
from segroi.utils.suggest import UsageError


@pytest.fixture
def pyramid():
    torch.manual_seed(0)
    sides = {"0": (24, 32), "1": (12, 16), "2": (6, 8), "3": (3, 4), "pool": (2, 2)}
    return OrderedDict((name, torch.randn(2, 8, *side)) for name, side in sides.items())


def test_adapter_equals_torchvisions_pooler(pyramid):
    boxes = [
        torch.tensor([[4.0, 8, 60, 40], [0, 0, 128, 96], [90, 50, 91, 52]]),
        torch.tensor([[16.0, 16, 20, 90], [1, 2, 120, 30]]),
    ]
    sizes = [(96, 128), (96, 128)]
    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2, canonical_scale=64)
    extractor = SingleLevelRoIExtractor(
        7, scales, 8, sampling_ratio=2, aligned=False, canonical_size=64
    )
    ours = RoIPool(extractor)(pyramid, boxes, sizes)
    torch.testing.assert_close(ours, theirs(pyramid, boxes, sizes))


def test_adapter_without_boxes(pyramid):
    extractor = SingleLevelRoIExtractor(7, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 8)
    crops = RoIPool(extractor)(pyramid, [torch.zeros(0, 4), torch.zeros(0, 4)], [(96, 128)] * 2)
    assert crops.shape == (0, 8, 7, 7)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_have_strides_4_to_64(name):
    with torch.device("meta"):
        backbone = build_backbone(name, channels=24)
        maps = backbone(torch.empty(1, 3, 128, 64))
    sides = {level: tuple(m.shape[1:]) for level, m in maps.items()}
    strides = {"0": 4, "1": 8, "2": 16, "3": 32, "pool": 64}
    assert sides == {level: (24, 128 // s, 64 // s) for level, s in strides.items()}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_backbone_weights_are_torchvisions(name, tmp_path):
    network = get_model(name, weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone(name, 8, norm="frozen", frozen_stages=2)
    load_backbone_weights(backbone, tmp_path / "weights.pth")
    trunk = network.features if name == "mobilenet_v2" else network
    names = list(dict(trunk.named_children()))
    last = names.index("layer4" if name == "resnet18" else "18") + 1
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = nn.Sequential(*list(trunk.eval().children())[:last])(image)
        torch.testing.assert_close(backbone.body(image)["3"], wanted)
    frozen = [p.requires_grad for p in backbone.body.parameters()]
    assert frozen[0] is False and frozen[-1] is True


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(get_model("resnet18", weights=None).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UsageError, match="of another network: .* tensors are missing"):
        load_backbone_weights(build_backbone("mobilenet_v2"), tmp_path / "weights.pth")
    (tmp_path / "broken.pth").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="cannot be read"):
        load_backbone_weights(build_backbone("resnet18"), tmp_path / "broken.pth")


@pytest.mark.parametrize("name", [n for n in MODELS if "box" in MODELS[n].kinds])
def test_every_model_trains_and_predicts(name):
    torch.manual_seed(0)
    model = build_model(name, 3, **tiny_arguments(name))
    images = [torch.rand(3, 64, 80), torch.rand(3, 80, 64)]
    masks = torch.zeros(1, 64, 80, dtype=torch.uint8)
    masks[:, 10:40, 10:50] = 1
    full = {"boxes": torch.tensor([[10.0, 10, 50, 40]]), "labels": torch.tensor([2])}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    targets = [{**full, "masks": masks}, {**none, "masks": torch.zeros(0, 80, 64).byte()}]
    losses = model(images, targets)
    sum(losses.values()).backward()
    assert ("loss_mask" in losses) == ("mask" in MODELS[name].kinds)
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    outputs = model.eval()(images)
    assert ("masks" in outputs[0]) == ("mask" in MODELS[name].kinds)
    assert all(o["labels"].numel() == 0 or o["labels"].max() <= 3 for o in outputs)


def test_class_agnostic_heads_share_one_box_and_one_mask():
    model = build_model("mask_rcnn", 3, **TINY, class_agnostic=True)
    heads = model.roi_heads
    _, boxes = heads.box_predictor(torch.randn(5, TINY["hidden"]))
    masks = heads.mask_predictor(torch.randn(5, TINY["channels"], 14, 14))
    assert boxes.shape == (5, 16) and masks.shape == (5, 4, 28, 28)
    assert torch.equal(boxes[:, :4], boxes[:, 12:]) and torch.equal(masks[:, 0], masks[:, 3])
    assert heads.box_predictor.bbox_pred.out_features == 4


def test_masks_may_have_an_extractor_of_their_own():
    heads = build_model("mask_rcnn_multiscale", 3, **TINY).roi_heads
    assert isinstance(heads.box_roi_pool.extractor, SingleLevelRoIExtractor)
    subnetwork = heads.mask_roi_pool.extractor
    assert isinstance(subnetwork, MultiScaleSubnetwork)
    assert subnetwork.factors == (1, 2, 4) and subnetwork.out_channels == TINY["channels"]


@pytest.mark.parametrize("name", ["mask_rcnn", "mask_rcnn_groie", "mask_rcnn_multiscale"])
def test_training_on_images_without_objects_has_gradients(name):
    torch.manual_seed(0)
    model = build_model(name, 3, **TINY)
    target = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 64, 64, dtype=torch.uint8),
    }
    total = sum(model([torch.rand(3, 64, 64)], [target]).values())
    total.backward()
    assert torch.isfinite(total)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_model("mask_rcn", 3), "unknown model 'mask_rcn': did you mean mask_rcnn"),
        (lambda: build_model("mask_rcnn", 3, chanels=4), "did you mean channels"),
        (lambda: build_model("mask_rcnn", 3, backbone="resnet-50"), "did you mean resnet50"),
        (lambda: build_model("mask_rcnn", 3, norm="froze"), "did you mean frozen"),
        (lambda: build_model("mask_rcnn", 3, frozen_stages=9), "frozen_stages must be 0 to 4"),
    ],
)
def test_unknown_names_get_a_suggestion(call, message):
    with pytest.raises(UsageError, match=message):
        call()
