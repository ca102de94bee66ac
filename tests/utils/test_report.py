from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from segroi.utils.coco import METRICS
from segroi.utils.report import ap_table
from segroi.utils.visualisation import beside, colour, draw_curves, draw_instances

GREY = np.full((40, 60, 3), 128, np.uint8)


def test_instances_are_drawn_where_they_are():
    mask = np.zeros((1, 40, 60), bool)
    mask[0, 10:30, 20:50] = True
    drawn = draw_instances(GREY, np.array([[20.0, 10, 50, 30]]), ["thing"], mask, [0.9])
    factor = drawn.shape[0] // 40
    assert drawn.shape == (40 * factor, 60 * factor, 3) and factor == 8
    small = drawn[factor // 2 :: factor, factor // 2 :: factor].astype(int)
    changed = (np.abs(small - 128) > 8).any(-1)
    assert changed[12:28, 22:48].all(), "the mask is coloured"
    assert not changed[32:, :].any() and not changed[:, :18].any(), "nothing else is"
    assert (drawn[10 * factor, 30 * factor] == colour(0)).all(), "the box has the full colour"


def test_nothing_found_is_the_picture_itself():
    drawn = draw_instances(GREY, np.zeros((0, 4)), [], np.zeros((0, 40, 60), bool), [])
    assert (drawn == 128).all()


def test_label_stays_inside_the_picture():
    big = np.zeros((500, 500, 3), np.uint8)
    drawn = draw_instances(big, np.array([[480.0, 0, 500, 20]]), ["a very long name"])
    assert drawn.shape == big.shape
    assert drawn[1, 400:].any(), "the text moved to the left"


def test_beside_keeps_both_pictures():
    row = beside([GREY, GREY[:20]], ["left", "right"])
    assert row.shape == (64, 128, 3)
    assert (row[24:64, :60] == 128).all() and (row[24:44, 68:] == 128).all()
    assert (row[44:, 68:] == 255).all()


def test_neighbouring_colours_differ():
    colours = np.array([colour(i) for i in range(20)], int)
    steps = np.abs(np.diff(colours, axis=0)).max(axis=1)
    assert steps.min() > 60 and len({tuple(c) for c in colours}) == 20


@pytest.mark.parametrize("count", [0, 1, 30])
def test_curves_of_any_length(tmp_path, count):
    rows = [
        {"iteration": i, "loss": 3.0 / (i + 1), "loss_mask": 1.0, "lr": 1} for i in range(count)
    ]
    with Image.open(draw_curves(tmp_path / "deep" / "curve.png", rows, "run")) as picture:
        assert picture.width > picture.height > 300


def test_table_shows_percent_and_leaves_unknown_cells_empty():
    numbers = dict.fromkeys(METRICS, 0.5) | {"APl": -1.0}
    html = ap_table([("box <1>", numbers)])
    assert html.count("<td>50.0</td>") == 11 and html.count("<td></td>") == 1
    assert "box &lt;1&gt;" in html
