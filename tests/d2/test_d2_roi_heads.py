from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import StandardROIHeads, build_roi_heads
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage

from segroi.d2 import SegroiPooler, load_config
from segroi.modeling.roi_extractors import GRoIE, MultiScaleSubnetwork

ROOT = Path(__file__).resolve().parents[2]
CHANNELS, SIZE, CLASSES = 12, 64, 3
STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}


def small_yacs(config="mask_rcnn_groie_R_50_FPN_1x.yaml"):
    cfg = load_config(str(ROOT / "configs/d2" / config))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = CLASSES
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 8
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.MULTI_SCALE_SUBNETWORK.CHANNELS = CHANNELS
    return cfg


def build(cfg):
    shapes = {name: ShapeSpec(channels=CHANNELS, stride=s) for name, s in STRIDES.items()}
    return build_roi_heads(cfg, shapes)


def small_lazy(config="mask_rcnn_groie_R_50_FPN_1x.py"):
    heads = LazyConfig.load(str(ROOT / "configs/d2" / config)).model.roi_heads
    heads.num_classes = CLASSES
    heads.batch_size_per_image = 8
    heads.box_pooler.extractor.in_channels = CHANNELS
    heads.box_head.input_shape.channels = CHANNELS
    heads.box_head.fc_dims = [16, 16]
    heads.box_predictor.input_shape.channels = 16
    if "mask_head" in heads:
        heads.mask_pooler.extractor.in_channels = CHANNELS
        heads.mask_head.input_shape.channels = CHANNELS
        heads.mask_head.conv_dims = [16] * 5
    return instantiate(heads)


def batch(objects, proposals):
    """Images, features, proposals and ground truth of two images."""
    torch.manual_seed(0)
    images = ImageList(torch.zeros(2, 3, SIZE, SIZE), [(SIZE, SIZE)] * 2)
    features = {n: torch.randn(2, CHANNELS, SIZE // s, SIZE // s) for n, s in STRIDES.items()}

    def boxes(n):
        corner = torch.rand(n, 2) * SIZE / 2
        return Boxes(torch.cat([corner, corner + 8 + torch.rand(n, 2) * SIZE / 4], dim=1))

    found, truth = [], []
    for _ in range(2):
        gt = Instances((SIZE, SIZE), gt_boxes=boxes(objects))
        gt.gt_classes = torch.arange(objects) % CLASSES
        gt.gt_masks = BitMasks(torch.rand(objects, SIZE, SIZE) > 0.5)
        truth.append(gt)
        proposal_boxes = Boxes(torch.cat([gt.gt_boxes.tensor + 1, boxes(proposals).tensor]))
        count = objects + proposals
        logits = torch.zeros(count)
        found.append(
            Instances((SIZE, SIZE), proposal_boxes=proposal_boxes, objectness_logits=logits)
        )
    return images, features, found, truth


def train(heads, objects=2, proposals=6):
    images, features, found, truth = batch(objects, proposals)
    torch.manual_seed(1)  # the sampling of proposals
    with EventStorage():
        return heads.train()(images, features, found, truth)[1]


@torch.no_grad()
def predict(heads, objects=2, proposals=6):
    images, features, found, _ = batch(objects, proposals)
    heads.eval().box_predictor.test_score_thresh = 0.0
    return heads(images, features, found)[0]


@pytest.mark.parametrize("system", ["mask", "faster"])
def test_yacs_and_lazy_build_the_same_heads(system):
    yacs = build(small_yacs(f"{system}_rcnn_groie_R_50_FPN_1x.yaml"))
    lazy = small_lazy(f"{system}_rcnn_groie_R_50_FPN_1x.py")
    assert type(lazy) is StandardROIHeads
    assert list(yacs.state_dict()) == list(lazy.state_dict())
    lazy.load_state_dict(yacs.state_dict())
    losses = train(yacs), train(lazy)
    assert set(losses[0]) == {"loss_cls", "loss_box_reg"} | (
        {"loss_mask"} if system == "mask" else set()
    )
    for name, loss in losses[0].items():
        torch.testing.assert_close(loss, losses[1][name], msg=name)
    for one, other in zip(predict(yacs), predict(lazy)):
        assert len(one) == len(other) > 0
        torch.testing.assert_close(one.pred_boxes.tensor, other.pred_boxes.tensor)
        if system == "mask":
            torch.testing.assert_close(one.pred_masks, other.pred_masks)


def test_box_and_mask_do_not_share_weights():
    heads = build(small_yacs())
    assert isinstance(heads.box_pooler, SegroiPooler) and isinstance(
        heads.mask_pooler, SegroiPooler
    )
    box, mask = (set(pooler.parameters()) for pooler in (heads.box_pooler, heads.mask_pooler))
    assert box and mask and not box & mask
    assert heads.box_pooler.extractor.output_size == (7, 7)
    assert heads.mask_pooler.extractor.output_size == (14, 14)


def test_each_head_may_keep_the_pooler_of_detectron2():
    cfg = small_yacs()
    cfg.MODEL.ROI_BOX_HEAD.EXTRACTOR = ""
    cfg.MODEL.ROI_MASK_HEAD.EXTRACTOR = "MultiScaleSubnetwork"
    heads = build(cfg)
    assert type(heads.box_pooler).__name__ == "ROIPooler"
    assert isinstance(heads.mask_pooler.extractor, MultiScaleSubnetwork)
    assert all(torch.isfinite(loss) for loss in train(heads).values())


def test_heads_follow_the_channels_of_the_extractor():
    cfg = small_yacs()
    cfg.MODEL.ROI_MASK_HEAD.EXTRACTOR = "MultiScaleSubnetwork"
    cfg.MODEL.MULTI_SCALE_SUBNETWORK.CHANNELS = 20
    heads = build(cfg)
    assert heads.mask_head.mask_fcn1.in_channels == 20
    assert torch.isfinite(train(heads)["loss_mask"])


def test_cascade_heads_look_through_the_extractor():
    cfg = small_yacs()
    cfg.MODEL.ROI_HEADS.NAME = "ExtractorCascadeROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    heads = build(cfg)
    assert isinstance(heads.box_pooler.extractor, GRoIE)
    assert {"loss_cls_stage2", "loss_mask"} <= set(train(heads))


def test_keypoints_are_untouched():
    cfg = small_yacs()
    cfg.MODEL.KEYPOINT_ON = True
    heads = build(cfg)
    assert type(heads.keypoint_pooler).__name__ == "ROIPooler"


@pytest.mark.parametrize("extractor", ["GRoIE", "MultiScaleSubnetwork"])
def test_without_proposals_and_objects(extractor):
    cfg = small_yacs()
    cfg.MODEL.ROI_BOX_HEAD.EXTRACTOR = cfg.MODEL.ROI_MASK_HEAD.EXTRACTOR = extractor
    heads = build(cfg)
    losses = train(heads, objects=0, proposals=0)
    assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()
    missing = [name for name, p in heads.named_parameters() if p.grad is None]
    assert not missing
    assert [len(found) for found in predict(heads, objects=0, proposals=0)] == [0, 0]


def test_images_without_objects_train_every_mask_parameter():
    heads = build(small_yacs())
    sum(train(heads, objects=0, proposals=6).values()).backward()
    missing = [name for name, p in heads.named_parameters() if p.grad is None]
    assert not missing


@pytest.mark.parametrize("extractor", ["SingleLevelRoIExtractor", "GRoIE", "MultiScaleSubnetwork"])
def test_autocast(extractor):
    cfg = small_yacs()
    cfg.MODEL.ROI_BOX_HEAD.EXTRACTOR = cfg.MODEL.ROI_MASK_HEAD.EXTRACTOR = extractor
    heads = build(cfg)
    exact = train(heads)
    images, features, found, truth = batch(objects=2, proposals=6)
    half = {name: x.bfloat16() for name, x in features.items()}
    torch.manual_seed(1)
    with EventStorage(), torch.autocast("cpu", torch.bfloat16):
        losses = heads(images, half, found, truth)[1]
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in heads.parameters())
    for name, loss in losses.items():
        torch.testing.assert_close(loss.float(), exact[name], rtol=0.05, atol=0.02, msg=name)
