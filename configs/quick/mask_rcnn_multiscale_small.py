"""Small Mask R-CNN with the multi-scale subnetwork on photographs of your own."""

from detectron2.config import LazyCall as L

from segroi.d2 import SegroiPooler
from segroi.modeling.roi_extractors import MultiScaleSubnetwork

from ..common.multi_scale_subnetwork import fpn
from .common.photographs import channels, dataloader, lr_multiplier, model, optimizer, train

fpn.update(in_channels=channels.fpn, out_channels=channels.fpn)
model.roi_heads.mask_pooler = L(SegroiPooler)(extractor=L(MultiScaleSubnetwork)(**fpn))
