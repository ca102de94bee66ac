"""SBR-CNN R50-FPN, 1x."""

from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier
from .common.sbr_cnn import model
