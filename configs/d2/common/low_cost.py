"""Low-cost semantic segmentation: model, data and recipe; change model.backbone and the maps."""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import transforms as T
from detectron2.evaluation import SemSegEvaluator
from detectron2.layers import ShapeSpec
from detectron2.modeling import SemanticSegmentor
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import ConstantParamScheduler
from omegaconf import OmegaConf

from segroi.d2.semantic import FCNDecoderHead, MobileNetV1Backbone
from segroi.utils.optim import TFRMSprop

from ...common.low_cost import cityscapes, mobilenet, num_classes, rmsprop

CHANNELS_STRIDES = {
    "conv5": (128, 8),
    "conv11": (256, 16),
    "conv13": (512, 32),
    "pool1": (64, 4),
    "pool3": (128, 8),
    "fire9": (512, 16),
}


def maps(*names, stride=None):
    """Shapes of a decoder's maps; ``stride`` overrides that of the last one (atrous encoders)."""
    shapes = {n: CHANNELS_STRIDES[n] for n in names}
    return {
        n: L(ShapeSpec)(channels=c, stride=stride if stride and n == names[-1] else s)
        for n, (c, s) in shapes.items()
    }


model = L(SemanticSegmentor)(
    backbone=L(MobileNetV1Backbone)(**mobilenet),
    sem_seg_head=L(FCNDecoderHead)(input_shape=maps("conv13"), num_classes=num_classes),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)


def _mapper(is_train):
    flip = [L(T.RandomFlip)(horizontal=True)] if is_train else []
    return L(DatasetMapper)(is_train=is_train, augmentations=flip, image_format="RGB")


dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="cityscapes_fine_sem_seg_train"),
    mapper=_mapper(True),
    total_batch_size=cityscapes.batch_size,
    num_workers=4,
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="cityscapes_fine_sem_seg_val", filter_empty=False),
    mapper=_mapper(False),
    num_workers=4,
)
dataloader.evaluator = L(SemSegEvaluator)(dataset_name="${..test.dataset.names}")

optimizer = L(TFRMSprop)(params=L(get_default_optimizer_params)(), **rmsprop)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(ConstantParamScheduler)(value=1.0), warmup_length=0.0, warmup_factor=1.0
)
train = model_zoo.get_config("common/train.py").train
train.init_checkpoint = ""
train.update(max_iter=cityscapes.max_iter, eval_period=cityscapes.eval_period)
