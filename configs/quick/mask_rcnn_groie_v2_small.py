"""Small Mask R-CNN with GRoIE as SBR-CNN has it, 7x7 kernels, on photographs of your own."""

from ..common.groie import box_size, mask_size
from ..common.recursive import sbr_modules
from ..d2.common.groie import groie_pooler
from .common.photographs import channels, dataloader, lr_multiplier, model, optimizer, train
from .common.sbr_cnn import temper

model.roi_heads.box_pooler = groie_pooler(box_size, channels.fpn)
model.roi_heads.mask_pooler = groie_pooler(mask_size, channels.fpn)
for pooler in (model.roi_heads.box_pooler, model.roi_heads.mask_pooler):
    pooler.extractor.update(sbr_modules)
temper(model, optimizer)
