"""The same with deformable convolutions (v1) in res3, res4 and res5."""

from .common.dcn import make_deformable
from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier
from .htc_R_50_FPN_1x import model

make_deformable(model)
