"""Small SBR-CNN on photographs of your own."""

from ..d2.common.sbr_cnn import sbr_cnn
from .common.photographs import channels, dataloader, lr_multiplier, model, optimizer, train
from .common.sbr_cnn import temper

sbr_cnn(model, channels.fpn)
temper(model, optimizer)
