"""A Mask R-CNN that trains from scratch in minutes on two CPU cores, on scenes of digits.

Small numbers, Detectron2's own parts: ResNet of basic blocks, FPN, RPN, StandardROIHeads. Box
regression and masks are class-agnostic, because little data has to do. (A backbone of twice the
channels with norms in pyramid and box head learned more slowly in as many iterations.)
"""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from segroi.d2.backbones import small_resnet
from segroi.d2.evaluation import MaskScoreCOCOEvaluator

channels = {"fpn": 48, "fc": 256}
size = 224

model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
model.backbone.bottom_up = L(small_resnet)(out_features=["res2", "res3", "res4", "res5"])
model.backbone.out_channels = channels["fpn"]
model.proposal_generator.head.in_channels = channels["fpn"]
model.proposal_generator.anchor_generator.sizes = [[24], [48], [96], [192], [384]]
model.proposal_generator.batch_size_per_image = 64
model.proposal_generator.pre_nms_topk = (300, 200)
model.proposal_generator.post_nms_topk = (100, 60)
heads = model.roi_heads
heads.num_classes = 10
heads.batch_size_per_image = 32
heads.positive_fraction = 0.33
heads.box_head.input_shape.channels = channels["fpn"]
heads.box_head.fc_dims = [channels["fc"]]
heads.box_predictor.input_shape.channels = channels["fc"]
heads.box_predictor.cls_agnostic_bbox_reg = True
heads.mask_head.input_shape.channels = channels["fpn"]
heads.mask_head.conv_dims = [channels["fpn"]] * 3
heads.mask_head.num_classes = 1
model.pixel_mean = [123.675, 116.28, 103.53]
model.pixel_std = [58.395, 57.12, 57.375]
model.input_format = "RGB"

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
resize = [L(T.ResizeShortestEdge)(short_edge_length=size, max_size=2 * size)]
for split in ("train", "test"):
    dataloader[split].mapper.augmentations = resize  # no flip: a mirrored 2 is no 2
    dataloader[split].num_workers = 0
dataloader.train.dataset.names = "segroi_digits_train"
dataloader.train.mapper.image_format = "RGB"
dataloader.train.mapper.instance_mask_format = "bitmask"
dataloader.train.total_batch_size = 4
dataloader.test.dataset.names = "segroi_digits_val"
dataloader.evaluator._target_ = MaskScoreCOCOEvaluator
dataloader.evaluator.output_dir = "${...train.output_dir}/inference"

optimizer = model_zoo.get_config("common/optim.py").AdamW
optimizer.lr = 1.5e-3
optimizer.weight_decay = 0.05
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.01),
    warmup_length=0.05,
    warmup_factor=0.01,
)

train = model_zoo.get_config("common/train.py").train
train.max_iter = 800
train.eval_period = 0
train.seed = 1
