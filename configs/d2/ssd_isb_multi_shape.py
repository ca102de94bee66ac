"""SSD-ISB with the Multi-Shape branches on the persons of COCO (thesis, chapter 5)."""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import MultiStepParamScheduler

from segroi.d2.evaluation import MaskScoreCOCOEvaluator
from segroi.utils.optim import TFRMSprop, decay_convolutions

from .common.ssd_isb import model

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.total_batch_size = 24
dataloader.train.mapper.image_format = dataloader.test.mapper.image_format = "RGB"
dataloader.train.mapper.instance_mask_format = "bitmask"
dataloader.train.mapper.augmentations = [
    L(T.RandomCrop)(crop_type="relative_range", crop_size=[0.6, 0.6]),  # stands for SSD's crops
    L(T.RandomFlip)(horizontal=True),
]
dataloader.test.mapper.augmentations = []  # the model warps images to its own size
dataloader.evaluator._target_ = MaskScoreCOCOEvaluator
dataloader.evaluator.output_dir = "${...train.output_dir}/inference"

optimizer = L(TFRMSprop)(params=L(decay_convolutions)(model=None, weight_decay=4e-5), lr=4e-5)

train = model_zoo.get_config("common/train.py").train
train.init_checkpoint = ""
train.max_iter = 150_000
lr_multiplier = L(MultiStepParamScheduler)(
    values=[0.75**n for n in range(15)],
    milestones=[10_000 * n for n in range(1, 15)],
    num_updates=150_000,
)
