"""Small SBR-CNN on scenes of handwritten digits."""

from ..d2.common.sbr_cnn import sbr_cnn
from .common.small import channels, dataloader, lr_multiplier, model, optimizer, train

sbr_cnn(model, channels.fpn)
dataloader.train.total_batch_size = 2  # 7x7 kernels in three loops take their time on a CPU

# One run on a CPU, scenes as drawn by default: box AP 11.2, mask AP 10.1. Its deep stack of 7x7
# kernels without a norm learns slowly: the small R3-CNN and Mask R-CNN are far ahead by then.
TEST = dict(EXPECTED_RESULTS=[["bbox", "AP", 11.2, 6.0], ["segm", "AP", 10.1, 6.0]])
