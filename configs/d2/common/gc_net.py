"""ResNet-50 with context blocks in res3, res4 and res5, and synchronised batch norm."""

from detectron2.config import LazyCall as L

from segroi.d2.gc_net import gc_resnet


def add_context(model):
    """Replace the model's ResNet-50."""
    model.backbone.bottom_up = L(gc_resnet)(depth=50, norm="SyncBN", freeze_at=2)
    model.backbone.in_features = ["res2", "res3", "res4", "res5"]
    return model
