"""What SBR-CNN's large kernels need to learn in a few hundred steps of Adam.

Adam moves every weight by about the learning rate, so a step may move the output of a 7x7 kernel of
48 channels by 2,352 times that, and many of these stand behind each other without a norm. The
attention between them saturates at once on the features of this pyramid, whose root mean square is
ten at the start. And a random 7x7 kernel before the sum blurs every crop until it has learned.
"""

from detectron2.config import LazyCall as L

from segroi.utils.optim import slow_modules

large_kernels = ["box_pooler", "box_head", "mask_pooler", "mask_iou_head"]


def temper(model, optimizer):
    """Normalise the pyramid, slow large kernels down and let GRoIE's start as the identity."""
    model.backbone.norm = "LN"
    heads = model.roi_heads
    for kind in ("box", "mask"):
        # a head that works in loops has a list of them
        for pooler in heads.get(f"{kind}_poolers") or [heads[f"{kind}_pooler"]]:
            pooler.extractor.identity_pre = True
    optimizer.params.lr_factor_func = L(slow_modules)(
        modules=[f"roi_heads.{name}" for name in large_kernels], factor=0.3
    )
