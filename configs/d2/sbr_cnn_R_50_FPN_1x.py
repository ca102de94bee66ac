"""SBR-CNN R50-FPN, 1x."""

from .common.rcnn_fpn import mask_rcnn
from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier
from .common.sbr_cnn import sbr_cnn

model = sbr_cnn(mask_rcnn)
