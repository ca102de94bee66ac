"""The multi-scale subnetwork on C4: yacs, lazy, mask resolution, images without objects."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import build_roi_heads
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage

from segroi.d2 import load_config
from segroi.modeling.roi_extractors import MultiScaleSubnetwork

SIZE, CLASSES = 64, 3


def small_yacs(root, name="configs/d2/mask_rcnn_multiscale_R_50_C4_1x.yaml"):
    cfg = load_config(str(root / name))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = CLASSES
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 32  # res4 of 128, res5 of 256 channels
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
    cfg.MODEL.MULTI_SCALE_SUBNETWORK.CHANNELS = cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    return cfg


def build(cfg):
    return build_roi_heads(cfg, {"res4": ShapeSpec(channels=128, stride=16)})


def small_lazy(root):
    path = root / "configs/d2/mask_rcnn_multiscale_R_50_C4_1x.py"
    heads = LazyConfig.load(str(path)).model.roi_heads
    heads.num_classes, heads.batch_size_per_image = CLASSES, 4
    heads.res5.update(in_channels=128, bottleneck_channels=64, out_channels=256)
    heads.mask_pooler.extractor.update(in_channels=128, out_channels=16)
    heads.mask_head.input_shape.channels = 16
    heads.mask_head.conv_dims = [16]
    return instantiate(heads)


def batch(objects, proposals):
    torch.manual_seed(0)
    boxes = torch.rand(objects + proposals, 4) * 20 + torch.tensor([0.0, 0, 30, 30])
    truth = Instances((SIZE, SIZE), gt_boxes=Boxes(boxes[:objects] + 1))
    truth.gt_classes = torch.arange(objects) % CLASSES
    truth.gt_masks = BitMasks(torch.rand(objects, SIZE, SIZE) > 0.5)
    found = Instances((SIZE, SIZE), proposal_boxes=Boxes(boxes))
    found.objectness_logits = torch.zeros(len(boxes))
    features = {"res4": torch.randn(1, 128, SIZE // 16, SIZE // 16)}
    images = ImageList(torch.zeros(1, 3, SIZE, SIZE), [(SIZE, SIZE)])
    return images, features, [found], [truth]


def train(heads, objects=2, proposals=3):
    images, features, found, truth = batch(objects, proposals)
    torch.manual_seed(1)
    with EventStorage():
        return heads.train()(images, features, found, truth)[1]


@torch.no_grad()
def predict(heads, objects=2, proposals=3):
    images, features, found, _ = batch(objects, proposals)
    heads.eval().box_predictor.test_score_thresh = 0.0
    return heads(images, features, found)[0][0]


def test_yacs_and_lazy_build_the_same_heads(root):
    yacs, lazy = build(small_yacs(root)), small_lazy(root)
    assert list(yacs.state_dict()) == list(lazy.state_dict())
    assert isinstance(yacs.mask_pooler.extractor, MultiScaleSubnetwork)
    lazy.load_state_dict(yacs.state_dict())
    losses = train(yacs), train(lazy)
    assert set(losses[0]) == {"loss_cls", "loss_box_reg", "loss_mask"}
    for name, loss in losses[0].items():
        torch.testing.assert_close(loss, losses[1][name], msg=name)
    one, other = predict(yacs), predict(lazy)
    torch.testing.assert_close(one.pred_boxes.tensor, other.pred_boxes.tensor)
    torch.testing.assert_close(one.pred_masks, other.pred_masks)


@pytest.mark.parametrize("upsample, size", [(False, 14), (True, 28)])
def test_mask_resolution(root, upsample, size):
    cfg = small_yacs(root)
    cfg.MODEL.ROI_MASK_HEAD.MASK_UPSAMPLE = upsample
    heads = build(cfg)
    assert predict(heads).pred_masks.shape[1:] == (1, size, size)
    assert hasattr(heads.mask_head, "deconv") == upsample
    sum(train(heads).values()).backward()
    assert all(p.grad is not None for p in heads.parameters() if p.requires_grad)


def test_without_upsampling_the_channels_must_agree(root):
    cfg = small_yacs(root)
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 24
    with pytest.raises(ValueError, match="MaskRCNNConvHead: .* got 16 and 24"):
        build(cfg)


@pytest.mark.parametrize("proposals", [0, 3])
def test_without_objects(root, proposals):
    heads = build(small_yacs(root))
    losses = train(heads, objects=0, proposals=proposals)
    sum(losses.values()).backward()
    assert losses["loss_mask"] == 0
    missing = [n for n, p in heads.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def test_boxes_alone(root):
    cfg = small_yacs(root)
    cfg.MODEL.MASK_ON = False
    heads = build(cfg)
    assert set(train(heads)) == {"loss_cls", "loss_box_reg"}
    assert not predict(heads).has("pred_masks")


def test_variants_of_the_project(root):
    leaves = {p.stem: p for p in (root / "projects/MultiScaleSubnet/configs").glob("*.yaml")}
    expected = {
        "tensorflow_crop_R_50_C4_1x": ("coordinates", "tf"),
        "two_branches_R_50_C4_1x": ("factors", (1, 2)),
        "mask_28_R_50_C4_1x": ("factors", (1, 2, 4)),
        "without_norm_R_50_C4_1x": ("coordinates", "aligned"),
    }
    for name, (attribute, value) in expected.items():
        heads = build(small_yacs(root, leaves.pop(name)))
        assert getattr(heads.mask_pooler.extractor, attribute) == value, name
        norms = [m for m in heads.mask_pooler.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert bool(norms) == ("without_norm" not in name)
    fpn = load_config(str(leaves.pop("box_and_mask_R_101_FPN_1x")))
    strides = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
    shapes = {n: ShapeSpec(channels=256, stride=s) for n, s in strides.items()}
    heads = build_roi_heads(fpn, shapes)
    assert heads.box_pooler.extractor.output_size == (7, 7)
    assert fpn.MODEL.RESNETS.DEPTH == 101 and fpn.SOLVER.MAX_ITER == 90_000
    assert set(leaves) == {"mask_rcnn_R_50_C4_1x", "mask_rcnn_R_101_FPN_1x"}


def test_parameters_of_the_subnetwork(root):
    lazy = LazyConfig.load(str(root / "configs/d2/mask_rcnn_multiscale_R_101_FPN_1x.py"))
    pooler = instantiate(lazy.model.roi_heads.mask_pooler)
    count = sum(p.numel() for p in pooler.parameters())
    # three 1x1 convolutions with the affine part of their norm, and the fusing 3x3 convolution
    assert count == 3 * (256 * 256 + 2 * 256) + 1_769_728
