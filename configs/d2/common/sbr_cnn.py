"""SBR-CNN: R3-CNN with FCC box head, FCC Mask IoU head and GRoIE of 7x7 kernels."""

from detectron2.config import LazyCall as L

from segroi.d2.roi_heads.recursive_parts import FCCHead
from segroi.modeling.heads.mask_iou_head import MaskIoUHead

from ...common.groie import box_size, mask_size
from ...common.recursive import naive, sbr_box_head, sbr_mask_iou, sbr_modules
from .groie import groie_pooler
from .recursive import recursive


def sbr_cnn(model, channels=256):
    """Replace the RoI heads of a lazy Mask R-CNN whose FPN has so many channels."""
    heads = model.roi_heads
    heads.box_pooler = groie_pooler(box_size, channels)
    heads.mask_pooler = groie_pooler(mask_size, channels)
    for pooler in (heads.box_pooler, heads.mask_pooler):
        pooler.extractor.update(sbr_modules)
    heads.box_head = L(FCCHead)(in_channels=channels, resolution=box_size, **sbr_box_head)
    # FCC keeps all cells and a quarter of the channels.
    heads.box_predictor.input_shape.channels = channels // 4 * box_size**2
    heads.mask_iou_head = L(MaskIoUHead)(
        in_channels=channels,
        conv_dim=channels,
        num_classes="${..num_classes}",
        **sbr_mask_iou,
    )
    return recursive(model, naive)
