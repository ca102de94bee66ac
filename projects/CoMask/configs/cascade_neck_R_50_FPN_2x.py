"""Each branch of the neck continues the branch before."""

from ....configs.d2.comask_R_50_FPN_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.neck.chain = "cascade"
