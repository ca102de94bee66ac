"""SSD-ISB for Detectron2's lazy configs."""

from detectron2.config import LazyCall as L

from segroi.d2.meta_arch import SSDISB
from segroi.modeling.ssd.branches import InstanceBranches
from segroi.modeling.ssd.detector import SSD

model = L(SSDISB)(
    detector=L(SSD)(num_classes="${..num_classes}", depth_multiplier=1.0, norm_momentum=0.0003),
    # FCN8: conv13, and the skips conv11 and conv5
    branches=L(InstanceBranches)(in_channels=1024, skip_channels=[512, 256], family="multi_shape"),
    image_size=[640, 640],
    num_classes=1,
    pixel_mean=[127.5, 127.5, 127.5],
    pixel_std=[127.5, 127.5, 127.5],
)
