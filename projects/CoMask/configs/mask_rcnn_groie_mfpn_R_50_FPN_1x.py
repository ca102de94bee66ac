"""Necks and extractors compose: Mask R-CNN with the multi-scale pyramid and GRoIE, 1x."""

from detectron2.config import LazyCall as L

from segroi.d2.necks import MultiScaleFPN
from segroi.modeling.necks.msfem import MFPN

from ....configs.common.comask import neck
from ....configs.d2.mask_rcnn_groie_R_50_FPN_1x import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.backbone.update(_target_=MultiScaleFPN, neck=L(MFPN)(**neck))
