"""Small Hybrid Task Cascade without its semantic branch, on scenes of handwritten digits."""

from ..common.recursive import htc
from ..d2.common.recursive import recursive
from .common.small import dataloader, lr_multiplier, model, optimizer, train

recursive(model, htc, first_carry=False)

# One run on a CPU, scenes as drawn by default: box AP 55.6, mask AP 45.4.
TEST = dict(EXPECTED_RESULTS=[["bbox", "AP", 55.6, 6.0], ["segm", "AP", 45.4, 6.0]])
