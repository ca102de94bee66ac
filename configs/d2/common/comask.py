"""CoMask out of Detectron2's Mask R-CNN config, by changing what differs."""

from detectron2.config import LazyCall as L

from segroi.d2 import SegroiPooler
from segroi.d2.necks import MultiScaleFPN
from segroi.d2.roi_heads import ClassificationOutputLayers, CoMaskROIHeads
from segroi.modeling.heads.collaborative import CollaborativeHead
from segroi.modeling.necks.msfem import MFPN
from segroi.modeling.roi_extractors import SingleLevelRoIExtractor

from ...common.comask import (
    box_size,
    cls_loss_weight,
    loss_weights,
    mask_size,
    nms_thresh,
    sampling,
    strides,
)
from ...common.comask import head as _head
from ...common.comask import neck as _neck


def to_comask(model, neck=_neck, head=_head):
    """Turn a lazy Mask R-CNN with FPN into CoMask, in place."""
    model.backbone.update(_target_=MultiScaleFPN, neck=L(MFPN)(**neck))
    heads = model.roi_heads
    heads.update(
        _target_=CoMaskROIHeads,
        box_pooler=_pooler(box_size, neck["channels"]),
        mask_pooler=_pooler(mask_size, neck["channels"]),
        mask_head=L(CollaborativeHead)(
            in_channels=neck["channels"], num_classes="${..num_classes}", **head
        ),
        box="collaborative",
        **loss_weights,
        **sampling,
    )
    heads.box_predictor.update(
        _target_=ClassificationOutputLayers,
        test_nms_thresh=nms_thresh,
        loss_weight={"loss_cls": cls_loss_weight},
    )


def _pooler(output_size, channels):
    return L(SegroiPooler)(
        extractor=L(SingleLevelRoIExtractor)(
            output_size=output_size,
            spatial_scales=[1 / stride for stride in strides],
            in_channels=channels,
        )
    )
