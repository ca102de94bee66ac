"""The base of configs for a few photographs of your own: MobileNet-v2, minutes on two CPU cores.

    python scripts/lazyconfig_train_net.py --config-file configs/quick/SYSTEM_small.py \
        --data-json annotations.json --images photographs train.output_dir=output/SYSTEM \
        'train.init_checkpoint="mobilenet_v2.pth?matching_heuristics=True"'

The weight file is torchvision's, of ImageNet. Its first blocks and its norms stay as they are;
neck and heads are those of :mod:`configs.quick.common.small`.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from segroi.d2.backbones import MobileNetV2

from .small import channels, dataloader, lr_multiplier, model, optimizer, train

size = 256

model.backbone.bottom_up = L(MobileNetV2)(frozen_blocks=4)
model.backbone.in_features = ["res2", "res3", "res4", "res5"]

resize = L(T.ResizeShortestEdge)(short_edge_length=size, max_size=2 * size)
dataloader.train.mapper.augmentations = [resize, L(T.RandomFlip)(horizontal=True)]
dataloader.test.mapper.augmentations = [resize]
dataloader.train.total_batch_size = 2

optimizer.lr = 1e-3
train.max_iter = 300
