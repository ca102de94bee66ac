"""Small R3-CNN (three loops, one pair of heads) on scenes of handwritten digits."""

from ..common.recursive import naive
from ..d2.common.recursive import recursive
from .common.small import dataloader, lr_multiplier, model, optimizer, train

recursive(model, naive)

# One run on a CPU, scenes as drawn by default: box AP 47.7, mask AP 41.2.
TEST = dict(EXPECTED_RESULTS=[["bbox", "AP", 47.7, 6.0], ["segm", "AP", 41.2, 6.0]])
