"""Mask R-CNN R101-FPN with the multi-scale subnetwork before the mask head, 1x."""

from detectron2.config import LazyCall as L

from segroi.d2 import SegroiPooler
from segroi.modeling.roi_extractors import MultiScaleSubnetwork

from ..common.multi_scale_subnetwork import fpn
from .common.rcnn_fpn import mask_rcnn as model
from .common.recipe import dataloader, optimizer, train
from .common.recipe import lr_multiplier_1x as lr_multiplier

model.backbone.bottom_up.stages.depth = 101
model.roi_heads.mask_pooler = L(SegroiPooler)(extractor=L(MultiScaleSubnetwork)(**fpn))
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
