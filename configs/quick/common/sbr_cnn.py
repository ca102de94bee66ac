"""What SBR-CNN's large kernels need to learn in a few hundred steps of Adam.

Adam moves every weight by about the learning rate, so a step may move the output of a 7x7 kernel of
48 channels by 2,352 times that, and many of these stand behind each other without a norm. And the
attention between them saturates at once on the features of this pyramid, whose root mean square is
ten at the start.
"""

from detectron2.config import LazyCall as L

from segroi.utils.optim import slow_modules

large_kernels = ["box_pooler", "box_head", "mask_pooler", "mask_iou_head"]


def temper(model, optimizer):
    """Normalise the pyramid and slow the modules of large kernels down, in place."""
    model.backbone.norm = "LN"
    optimizer.params.lr_factor_func = L(slow_modules)(
        modules=[f"roi_heads.{name}" for name in large_kernels], factor=0.1
    )
