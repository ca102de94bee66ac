"""Small SBR-CNN on scenes of handwritten digits."""

from ..d2.common.sbr_cnn import sbr_cnn
from .common.small import channels, dataloader, lr_multiplier, model, optimizer, train

sbr_cnn(model, channels.fpn)
dataloader.train.total_batch_size = 2  # 7x7 kernels in three loops take their time on a CPU
