"""Mask R-CNN R50-C4 whose masks (14x14) come from the multi-scale subnetwork on res4, 1x."""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from segroi.d2 import SegroiPooler
from segroi.d2.roi_heads import ExtractorRes5ROIHeads, MaskRCNNConvHead
from segroi.modeling.roi_extractors import MultiScaleSubnetwork

from ..common.multi_scale_subnetwork import c4
from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier

model = model_zoo.get_config("common/models/mask_rcnn_c4.py").model
model.backbone.freeze_at = 2
model.roi_heads._target_ = ExtractorRes5ROIHeads
model.roi_heads.mask_pooler = L(SegroiPooler)(extractor=L(MultiScaleSubnetwork)(**c4))
model.roi_heads.mask_head = L(MaskRCNNConvHead)(
    input_shape=ShapeSpec(channels=c4.out_channels, height=c4.output_size, width=c4.output_size),
    num_classes="${..num_classes}",
    conv_dims=[c4.out_channels],
    upsample=False,
)
