import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from segroi.d2 import SegroiPooler, load_config, poolers, replace_poolers
from segroi.modeling.roi_extractors import GRoIE, SingleLevelRoIExtractor

STRIDES = (4, 8, 16, 32)


def _features(levels=4, channels=6, images=2, size=128):
    return [torch.randn(images, channels, size // s, size // s) for s in STRIDES[:levels]]


def _boxes(*counts, size=128):
    """Integer boxes: there every implementation of the level rule agrees to the last bit."""
    corners = [torch.randint(0, size, (n, 2, 2)).sort(dim=1).values.flatten(1) for n in counts]
    return [Boxes(c.float() + torch.tensor([0.0, 0, 1, 1])) for c in corners]


@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
@pytest.mark.parametrize("output_size", [1, 7, 14])
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_single_level_extractor_equals_roi_pooler(pooler_type, sampling_ratio, output_size, levels):
    torch.manual_seed(levels)
    features, boxes = _features(levels), _boxes(20, 13)
    scales = [1 / s for s in STRIDES[:levels]]
    # A small canonical size spreads these boxes over all levels.
    theirs = ROIPooler(output_size, scales, sampling_ratio, pooler_type, 56, 4)
    ours = SegroiPooler(
        extractor=SingleLevelRoIExtractor(
            output_size,
            scales,
            in_channels=6,
            sampling_ratio=sampling_ratio,
            aligned=pooler_type == "ROIAlignV2",
            canonical_size=56,
        )
    )
    torch.testing.assert_close(ours(features, boxes), theirs(features, boxes), rtol=1e-5, atol=1e-5)


def test_gradients_equal_those_of_roi_pooler():
    scales, boxes = [1 / s for s in STRIDES], _boxes(11, 0, 7)
    one = [f.requires_grad_() for f in _features(images=3)]
    other = [f.detach().clone().requires_grad_() for f in one]
    ours = SegroiPooler(extractor=SingleLevelRoIExtractor(7, scales, 6, sampling_ratio=2))
    weight = torch.randn(18, 6, 7, 7)
    (ours(one, boxes) * weight).sum().backward()
    (ROIPooler(7, scales, 2, "ROIAlignV2")(other, boxes) * weight).sum().backward()
    for a, b in zip(one, other):
        expected = torch.zeros_like(a) if b.grad is None else b.grad
        torch.testing.assert_close(a.grad, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("counts", [(0, 0), (0, 3)])
@pytest.mark.parametrize("extractor", [SingleLevelRoIExtractor, GRoIE])
def test_images_without_boxes(counts, extractor):
    pooler = SegroiPooler(extractor=extractor(7, [1 / s for s in STRIDES], in_channels=12))
    pooled = pooler(_features(channels=12), _boxes(*counts))
    assert pooled.shape == (sum(counts), 12, 7, 7)
    if list(pooler.parameters()):
        pooled.sum().backward()
        assert all(p.grad is not None for p in pooler.parameters())


def test_number_of_images_is_checked():
    pooler = SegroiPooler(extractor=SingleLevelRoIExtractor(7, [1 / s for s in STRIDES], 6))
    with pytest.raises(ValueError, match="box_lists must hold Boxes for 2 images, got 1"):
        pooler(_features(), _boxes(4))


@pytest.mark.parametrize("name", ["SingleLevelRoIExtractor", "GRoIE", "MultiScaleSubnetwork"])
def test_from_config(name):
    cfg = load_config("")
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3"]
    cfg.MODEL.ROI_MASK_HEAD.EXTRACTOR = name
    cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE = "ROIAlign"
    cfg.MODEL.MULTI_SCALE_SUBNETWORK.CHANNELS = 12
    shapes = {f"p{i}": ShapeSpec(channels=12, stride=2**i) for i in range(2, 6)}
    pooler = SegroiPooler(cfg, shapes, "ROI_MASK_HEAD")
    assert type(pooler.extractor).__name__ == name
    assert pooler.extractor.spatial_scales == (1 / 4, 1 / 8)
    assert pooler.extractor.output_size == (14, 14)
    assert not pooler.extractor.aligned
    assert pooler.out_channels == 12


def test_other_pooler_types_are_refused():
    cfg = load_config("")
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2"]
    cfg.MODEL.ROI_BOX_HEAD.EXTRACTOR = "GRoIE"
    cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIPool"
    with pytest.raises(ValueError, match="ROI_BOX_HEAD.POOLER_TYPE .* got 'ROIPool'"):
        SegroiPooler(cfg, {"p2": ShapeSpec(channels=8, stride=4)}, "ROI_BOX_HEAD")


ZOO_POOLERS = {
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": ["box_pooler", "mask_pooler"],
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x": ["pooler"],
    "Misc/cascade_mask_rcnn_R_50_FPN_1x": ["box_pooler", "mask_pooler"],
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x": ["box_pooler", "keypoint_pooler"],
}


@pytest.mark.parametrize("name", ZOO_POOLERS)
def test_models_of_the_zoo_find_the_same_with_segroi(name):
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file(f"{name}.yaml"))
    cfg.MODEL.DEVICE, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = "cpu", 0.0
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = 20, 10
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for norm in (m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)):
        norm.weight.fill_(0.5)  # random weights grow from layer to layer
    image = [{"image": torch.randint(0, 256, (3, 96, 128)).float()}]
    with torch.no_grad():
        expected = model(image)[0]["instances"].get_fields()
        names = list(model.state_dict())
        assert replace_poolers(model) == [f"roi_heads.{p}" for p in ZOO_POOLERS[name]]
        found = model(image)[0]["instances"].get_fields()
    assert list(model.state_dict()) == names and len(found["scores"])
    for key, value in expected.items():
        theirs, ours = (getattr(v, "tensor", v) for v in (value, found[key]))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert replace_poolers(model) == []


def test_poolers_of_other_operators_stay():
    model = torch.nn.Sequential(
        ROIPooler(7, [1 / 4, 1 / 8], 0, "ROIPool"),
        ROIPooler(7, [1 / 4, 1 / 8], 0, "ROIAlignRotated"),
        ROIPooler(7, [1 / 4, 1 / 8], 2, "ROIAlign", 56, 3),
    )
    assert replace_poolers(model) == ["2"]
    extractor = model[2].extractor
    assert not extractor.aligned and extractor.sampling_ratio == 2
    assert (extractor.canonical_size, extractor.canonical_level) == (56, 3)


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_launchers_replace_poolers_where_the_operators_are_compiled(built, wanted, monkeypatch):
    monkeypatch.setattr(poolers, "build_info", lambda: {"built": built})
    model = torch.nn.Sequential(ROIPooler(7, [1 / 4, 1 / 8], 0, "ROIAlignV2"))
    assert poolers.with_fast_poolers(model, wanted) is model
    assert isinstance(model[0], SegroiPooler) is (built and wanted)
