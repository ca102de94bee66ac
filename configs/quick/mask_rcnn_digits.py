"""Small plain Mask R-CNN on scenes of handwritten digits: what the other systems stand beside."""

from .common.small import dataloader, lr_multiplier, model, optimizer, train

# One run on a CPU, scenes as drawn by default: box AP 34.5, mask AP 28.1.
TEST = dict(EXPECTED_RESULTS=[["bbox", "AP", 34.5, 6.0], ["segm", "AP", 28.1, 6.0]])
