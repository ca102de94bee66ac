"""Small Mask R-CNN with GRoIE on photographs of your own."""

from ..common.groie import box_size, mask_size
from ..d2.common.groie import groie_pooler
from .common.photographs import channels, dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.box_pooler = groie_pooler(box_size, channels.fpn)
model.roi_heads.mask_pooler = groie_pooler(mask_size, channels.fpn)
