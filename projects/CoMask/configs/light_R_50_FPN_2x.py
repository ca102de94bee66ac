"""The collaborative head with 256 instead of 576 channels."""

from ....configs.common.comask import light_head
from ....configs.d2.comask_R_50_FPN_2x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.mask_head.update(light_head)
