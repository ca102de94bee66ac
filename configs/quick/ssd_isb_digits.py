"""Small SSD-ISB on scenes of handwritten digits, from scratch.

    python scripts/lazyconfig_train_net.py --config-file configs/quick/ssd_isb_digits.py \
        train.output_dir=output/digits

Its 800 iterations show that everything runs and the losses fall; they are far too few for a
detector without proposals and without ImageNet's weights (box AP 0.3 in one run).
"""

from detectron2.config import LazyCall as L

from segroi.utils.optim import TFRMSprop, decay_convolutions

from ..d2.common.ssd_isb import model
from .common.small import dataloader, lr_multiplier, train

model.num_classes = 10
model.detector.depth_multiplier = 0.5
model.detector.norm_momentum = 0.03
model.branches.in_channels = 512
model.branches.skip_channels = [256, 128]
model.branches.shapes = [[4, 4], [3, 3], [3, 2], [2, 2], [2, 1], [1, 1]]
model.image_size = [224, 224]
model.pixel_mean = [123.675, 116.28, 103.53]
model.pixel_std = [58.395, 57.12, 57.375]
dataloader.train.total_batch_size = 8
optimizer = L(TFRMSprop)(params=L(decay_convolutions)(model=None, weight_decay=4e-5), lr=0.004)
