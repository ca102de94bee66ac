from __future__ import annotations

import numpy as np

from segroi.utils.dense_box_picture import draw_dense_boxes


def picture(weights, mask):
    image = np.full((40, 60, 3), 128, np.uint8)
    boxes = np.tile([10.0, 5.0, 50.0, 35.0], (49, 1))
    boxes += np.linspace(0, 5, 49)[:, None]
    return draw_dense_boxes(image, boxes, weights, boxes.mean(0), mask)


def test_shape_and_that_weights_and_mask_are_seen():
    weights, mask = np.linspace(0, 1, 49), np.zeros((40, 60), bool)
    plain = picture(weights, mask)
    assert plain.shape == (500, 1000, 3) and plain.dtype == np.uint8
    recoloured = picture(weights[::-1], mask)
    assert (recoloured[:, :500] != plain[:, :500]).any()
    mask[10:30, 20:40] = True
    masked = picture(weights, mask)
    changed = (masked != plain).any(-1)
    assert changed[:, 500:].any() and not changed[:, :500].any()
