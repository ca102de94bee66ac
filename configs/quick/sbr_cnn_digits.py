"""Small SBR-CNN on scenes of handwritten digits."""

from ..d2.common.sbr_cnn import sbr_cnn
from .common.sbr_cnn import temper
from .common.small import channels, dataloader, lr_multiplier, model, optimizer, train

sbr_cnn(model, channels.fpn)
temper(model, optimizer)
dataloader.train.total_batch_size = 2  # 7x7 kernels in three loops take their time on a CPU

# One run on a CPU, scenes as drawn by default: box AP 24.7, mask AP 18.7, of half as many images as
# the small Mask R-CNN sees (34.5 and 28.1). From ImageNet's weights it is ahead: sbr_cnn_small.py.
TEST = dict(EXPECTED_RESULTS=[["bbox", "AP", 24.7, 6.0], ["segm", "AP", 18.7, 6.0]])
