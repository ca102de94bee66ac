"""CoMask_1: the neck without strided branches."""

from ....configs.d2.comask_R_50_FPN_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.neck.num_branches = 1
