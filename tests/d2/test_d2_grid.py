import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import build_roi_heads
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage

from segroi.d2 import load_config
from segroi.modeling.heads.grid_head import GridHead, grid_targets

CHANNELS, SIZE, CLASSES = 12, 64, 3
STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
SMALL_HEAD = {"point_channels": 4, "num_convs": 2, "norm_groups": 9}


def small_yacs(root, name="grid_rcnn_R_50_FPN_1x"):
    cfg = load_config(str(root / f"configs/d2/{name}.yaml"))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = CLASSES
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 8
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
    node = cfg.MODEL.ROI_GRID_HEAD
    node.POINT_CHANNELS, node.NUM_CONV, node.NORM_GROUPS = SMALL_HEAD.values()
    return cfg


def build(cfg):
    shapes = {name: ShapeSpec(channels=CHANNELS, stride=s) for name, s in STRIDES.items()}
    return build_roi_heads(cfg, shapes)


def small_lazy(root, name):
    heads = LazyConfig.load(str(root / f"configs/d2/{name}.py")).model.roi_heads
    heads.num_classes, heads.batch_size_per_image = CLASSES, 8
    heads.box_pooler.extractor.in_channels = heads.grid_pooler.extractor.in_channels = CHANNELS
    heads.box_head.input_shape.channels = CHANNELS
    heads.box_head.fc_dims = [16, 16]
    heads.box_predictor.input_shape.channels = 16
    heads.grid_head.update(in_channels=CHANNELS, **SMALL_HEAD)
    return instantiate(heads)


def batch(objects=2, proposals=4):
    torch.manual_seed(0)
    features = {n: torch.randn(2, CHANNELS, SIZE // s, SIZE // s) for n, s in STRIDES.items()}
    found, truth = [], []
    for count in (objects, 0):  # the second image holds no objects
        boxes = torch.rand(count + proposals, 4) * 20 + torch.tensor([0.0, 0, 30, 30])
        gt = Instances((SIZE, SIZE), gt_boxes=Boxes(boxes[:count] + 1))
        gt.gt_classes = torch.arange(count) % CLASSES
        truth.append(gt)
        instances = Instances((SIZE, SIZE), proposal_boxes=Boxes(boxes))
        instances.objectness_logits = torch.zeros(len(boxes))
        found.append(instances)
    return ImageList(torch.zeros(2, 3, SIZE, SIZE), [(SIZE, SIZE)] * 2), features, found, truth


def train(heads, objects=2, proposals=4):
    images, features, found, truth = batch(objects, proposals)
    torch.manual_seed(1)
    with EventStorage():
        return heads.train()(images, features, found, truth)[1]


@torch.no_grad()
def predict(heads, objects=2, proposals=4):
    images, features, found, _ = batch(objects, proposals)
    heads.eval().box_predictor.test_score_thresh = 0.0
    return heads(images, features, found)[0]


@pytest.mark.parametrize("name", ["grid_rcnn_R_50_FPN_1x", "grid_rcnn_groie_R_50_FPN_1x"])
def test_yacs_and_lazy_build_the_same_heads(root, name):
    yacs, lazy = build(small_yacs(root, name)), small_lazy(root, name)
    assert list(yacs.state_dict()) == list(lazy.state_dict())
    lazy.load_state_dict(yacs.state_dict())
    losses = train(yacs), train(lazy)
    assert set(losses[0]) == {"loss_cls", "loss_grid"}
    for key, loss in losses[0].items():
        torch.testing.assert_close(loss, losses[1][key], msg=key)
    for one, other in zip(predict(yacs), predict(lazy)):
        assert len(one) == len(other) > 0
        torch.testing.assert_close(one.pred_boxes.tensor, other.pred_boxes.tensor)


def test_groie_looks_for_box_and_grid_head_with_weights_of_its_own(root):
    heads = build(small_yacs(root, "grid_rcnn_groie_R_50_FPN_1x"))
    box, grid = heads.box_pooler.extractor, heads.grid_pooler.extractor
    assert box.output_size == (7, 7) and grid.output_size == (14, 14)
    assert not set(box.parameters()) & set(grid.parameters())


@pytest.mark.parametrize("objects, proposals", [(0, 0), (0, 4), (2, 4)])
def test_every_parameter_has_a_gradient(root, objects, proposals):
    heads = build(small_yacs(root, "grid_rcnn_groie_R_50_FPN_1x"))
    sum(train(heads, objects, proposals).values()).backward()
    assert not [name for name, p in heads.named_parameters() if p.grad is None]
    assert len(predict(heads, objects, proposals)) == 2


def test_points_locate_the_boxes(root, monkeypatch):
    """With perfect heatmaps the boxes are those of the points, however bad the proposals."""
    heads = build(small_yacs(root))
    truth = torch.tensor([[10.0, 12, 50, 44]])

    def perfect(self, x):
        proposals = torch.tensor([[8.0, 8, 52, 50]]).expand(len(x), 4)
        targets = grid_targets(proposals, truth.expand(len(x), 4), radius=0)
        return 20 * targets - 10, None

    monkeypatch.setattr(GridHead, "forward", perfect)
    images, features, found, _ = batch()
    for instances in found:
        instances.proposal_boxes.tensor[:] = torch.tensor([8.0, 8, 52, 50])
    heads.eval().box_predictor.test_score_thresh = 0.0
    with torch.no_grad():
        boxes = heads(images, features, found)[0][0].pred_boxes.tensor
    assert len(boxes)
    assert (boxes - truth).abs().max() < 44 * 2 / 56  # a cell of the heatmap


def test_jittered_boxes_stay_near_and_inside(root):
    heads = build(small_yacs(root))
    boxes = torch.tensor([[20.0, 20, 40, 60]]).repeat(500, 1)
    torch.manual_seed(0)
    jittered = heads._jittered(Instances((64, 64), proposal_boxes=Boxes(boxes))).tensor
    reach = 0.15 * 1.5 * torch.tensor([20.0, 40, 20, 40]) + 1e-4
    assert ((jittered - boxes).abs() <= reach).all()
    assert jittered.std(dim=0).min() > 1
    assert jittered[:, 3].max() <= 64


def test_the_grid_head_sees_so_many_rois_at_most(root):
    cfg = small_yacs(root)
    cfg.MODEL.ROI_GRID_HEAD.MAX_ROIS = 1
    heads, seen = build(cfg), []
    heads.grid_head.register_forward_hook(lambda module, inputs, _: seen.append(len(inputs[0])))
    train(heads)
    assert seen == [1]
