"""Beyond the paper: the averaged box is trained too, through its weights."""

from ....configs.d2.comask_R_50_FPN_2x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.average_loss_weight = 1.0
