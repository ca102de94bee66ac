"""CoMask for a few minutes on two CPU cores: MobileNet-v2 with ImageNet weights, a light head.

python scripts/lazyconfig_train_net.py --config-file configs/quick/comask_small.py \
    --data-json annotations.json --images photographs \
    'train.init_checkpoint="mobilenet_v2.pth?matching_heuristics=True"'
"""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from segroi.d2.backbones import MobileNetV2

from ..d2.common.comask import to_comask as _to_comask
from ..d2.common.rcnn_fpn import mask_rcnn as model
from ..d2.common.recipe import dataloader, train

_channels, _short_edge = 64, 320

_to_comask(
    model,
    neck={"num_levels": 5, "channels": _channels, "num_branches": 4, "chain": "independent"},
    head={"conv_dim": 128, "num_convs": 4, "norm_groups": 16, "offset_bias": 0.5},
)
model.backbone.update(bottom_up=L(MobileNetV2)(), out_channels=_channels)
model.backbone.in_features = ["res2", "res3", "res4", "res5"]
model.proposal_generator.update(
    pre_nms_topk=(500, 500), post_nms_topk=(200, 100), batch_size_per_image=128
)
model.proposal_generator.head.in_channels = _channels
model.roi_heads.batch_size_per_image = 64
model.roi_heads.box_head.input_shape.channels = _channels
model.roi_heads.box_head.fc_dims = [256]
model.roi_heads.box_predictor.input_shape.channels = 256
model.pixel_mean, model.pixel_std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
model.input_format = "RGB"

for _mapper in (dataloader.train.mapper, dataloader.test.mapper):
    _mapper.image_format = "RGB"
    _mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=_short_edge, max_size=640)]
dataloader.train.mapper.augmentations.append(L(T.RandomFlip)(horizontal=True))
dataloader.train.update(total_batch_size=2, num_workers=0)
dataloader.test.num_workers = 0

optimizer = model_zoo.get_config("common/optim.py").AdamW
optimizer.update(lr=1e-3, weight_decay=0.05)
train.update(max_iter=600, eval_period=200, seed=1, output_dir="outputs/comask_small")
train.checkpointer.period = 600
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.01),
    warmup_length=0.05,
    warmup_factor=0.01,
)
