"""Without collaborative learning: dense boxes averaged with equal weights."""

from ....configs.d2.comask_R_50_FPN_2x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.box = "uniform"
