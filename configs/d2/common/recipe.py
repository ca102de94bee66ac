"""Detectron2's data, optimizer and trainer for COCO, with the numbers of configs/common."""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from segroi.d2.evaluation import MaskScoreCOCOEvaluator

from ...common.schedule import images_per_batch, schedule_1x, schedule_3x, sgd, warmup


def multi_step(schedule):
    """Learning rate of a schedule: divided by ten after every step, with a linear warm-up."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[0.1**n for n in range(len(schedule.steps) + 1)],
            milestones=schedule.steps,
            num_updates=schedule.max_iter,
        ),
        warmup_length=warmup.iters / schedule.max_iter,
        warmup_factor=warmup.factor,
    )


optimizer = model_zoo.get_config("common/optim.py").SGD
optimizer.update(sgd)
dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.total_batch_size = images_per_batch
dataloader.evaluator._target_ = MaskScoreCOCOEvaluator
dataloader.evaluator.output_dir = "${...train.output_dir}/inference"

train = model_zoo.get_config("common/train.py").train
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.max_iter = schedule_1x.max_iter
lr_multiplier_1x = multi_step(schedule_1x)
lr_multiplier_3x = multi_step(schedule_3x)
