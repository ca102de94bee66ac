"""HTC with GC-Net, R50-FPN, 1x."""

from .common.gc_net import add_context
from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier
from .htc_R_50_FPN_1x import model

add_context(model)
