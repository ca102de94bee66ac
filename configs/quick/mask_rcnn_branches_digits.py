"""Small Mask R-CNN with SSD-ISB's parallel branches as its mask head, on scenes of digits."""

from detectron2.config import LazyCall as L

from segroi.d2.roi_heads import InstanceBranchMaskHead
from segroi.modeling.ssd.branches import InstanceBranches

from .common.small import channels, dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.mask_pooler = None  # the head reads the maps themselves
model.roi_heads.mask_head = L(InstanceBranchMaskHead)(
    branches=L(InstanceBranches)(
        in_channels=channels.fpn,
        skip_channels=[channels.fpn, channels.fpn],
        shapes=[[4, 4], [3, 3], [3, 2], [2, 2], [2, 1], [1, 1]],  # in cells of 16 px
        stop_gradient=False,
    ),
    in_features=["p4", "p3", "p2"],
    strides=[16, 8, 4],
)

# One run on a CPU, scenes as drawn by default: box AP 36.0, mask AP 20.7.
TEST = dict(EXPECTED_RESULTS=[["bbox", "AP", 36.0, 6.0], ["segm", "AP", 20.7, 6.0]])
