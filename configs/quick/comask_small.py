"""CoMask on your own photographs, minutes on two CPU cores: MobileNet-v2 with ImageNet weights.

    python scripts/lazyconfig_train_net.py --config-file configs/quick/comask_small.py \
        --data-json annotations.json --images photographs train.output_dir=output/comask_small \
        'train.init_checkpoint="mobilenet_v2.pth?matching_heuristics=True"'

The weight file is torchvision's.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from segroi.d2.backbones import MobileNetV2

from ..d2.common.comask import to_comask as _to_comask
from .common.comask import head as _head
from .common.comask import neck as _neck
from .common.small import channels as _channels
from .common.small import dataloader, lr_multiplier, model, optimizer, train

_to_comask(model, _neck(_channels.fpn), _head)
model.backbone.bottom_up = L(MobileNetV2)()
model.backbone.in_features = ["res2", "res3", "res4", "res5"]
model.roi_heads.batch_size_per_image = 64

_short_edge, _flip = 320, L(T.RandomFlip)(horizontal=True)
for _split in ("train", "test"):
    _resize = L(T.ResizeShortestEdge)(short_edge_length=_short_edge, max_size=2 * _short_edge)
    dataloader[_split].mapper.augmentations = [_resize]
dataloader.train.mapper.augmentations.append(_flip)
dataloader.train.total_batch_size = 2

optimizer.lr = 1e-3
train.max_iter = 600
