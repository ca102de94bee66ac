"""Turn Detectron2's Mask R-CNN into one whose heads work in loops."""

from copy import deepcopy

from detectron2.config import LazyCall as L
from detectron2.modeling.box_regression import Box2BoxTransform

from segroi.d2.roi_heads import RecursiveROIHeads
from segroi.modeling.heads.recursive_mask_head import RecursiveMaskHead
from segroi.modeling.recursion.schedule import LoopSchedule

from ...common.recursive import bbox_reg_weights, score_threshold, smooth_l1_beta


def recursive(model, schedule, first_carry=True):
    """Replace the RoI heads; pairs of heads are copies of those that the model has.

    Args:
        model: lazy Mask R-CNN; change its poolers and box head before.
        schedule: arguments of ``LoopSchedule.from_alternation``.
        first_carry: whether the first mask head has the convolution C1 (HTC's has not).
    """
    heads = model.roi_heads
    pairs = range(len(set(schedule["alternation"])))
    agnostic_masks = heads.mask_head.num_classes == 1
    box_pooler, box_head, box_predictor, mask_pooler, mask_head = (
        heads.pop(key)
        for key in ("box_pooler", "box_head", "box_predictor", "mask_pooler", "mask_head")
    )
    heads.pop("proposal_matcher")
    box_predictor.update(
        cls_agnostic_bbox_reg=True,
        smooth_l1_beta=smooth_l1_beta,
        test_score_thresh=score_threshold,
        num_classes="${...num_classes}",
    )
    heads.update(
        _target_=RecursiveROIHeads,
        schedule=L(LoopSchedule.from_alternation)(**schedule),
        box_poolers=[deepcopy(box_pooler) for _ in pairs],
        box_heads=[deepcopy(box_head) for _ in pairs],
        box_predictors=[deepcopy(box_predictor) for _ in pairs],
        mask_poolers=[deepcopy(mask_pooler) for _ in pairs],
        mask_heads=[
            L(RecursiveMaskHead)(
                in_channels=mask_head.input_shape.channels,
                num_classes=1 if agnostic_masks else "${...num_classes}",
                conv_dim=mask_head.conv_dims[0],
                num_convs=len(mask_head.conv_dims) - 1,
                carry=first_carry or pair > 0,
            )
            for pair in pairs
        ],
    )
    for predictor, weights in zip(heads.box_predictors, bbox_reg_weights):
        predictor.box2box_transform = L(Box2BoxTransform)(weights=weights)
    return model
