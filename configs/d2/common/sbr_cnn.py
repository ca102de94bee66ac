"""SBR-CNN: R3-CNN with FCC box head, FCC Mask IoU head and GRoIE of 7x7 kernels."""

from detectron2.config import LazyCall as L

from segroi.d2.roi_heads.recursive_parts import FCCHead
from segroi.modeling.heads.mask_iou_head import MaskIoUHead

from ...common.groie import box_size, mask_size
from ...common.recursive import naive, sbr_box_head, sbr_mask_iou, sbr_modules
from .groie import groie_pooler
from .rcnn_fpn import mask_rcnn
from .recursive import recursive

_heads = mask_rcnn.roi_heads
_heads.box_pooler = groie_pooler(box_size)
_heads.mask_pooler = groie_pooler(mask_size)
for _pooler in (_heads.box_pooler, _heads.mask_pooler):
    _pooler.extractor.update(sbr_modules)
_heads.box_head = L(FCCHead)(in_channels=256, resolution=box_size, **sbr_box_head)
# FCC has 1/4 of the channels and all cells.
_heads.box_predictor.input_shape.channels = 256 // 4 * box_size**2
_heads.mask_iou_head = L(MaskIoUHead)(num_classes="${..num_classes}", **sbr_mask_iou)

model = recursive(mask_rcnn, naive)
