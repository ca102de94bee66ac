import pytest
import torch
from detectron2.structures import Boxes

from segroi.d2.convert import boxes_to_rois, rois_to_boxes


def test_boxes_carry_their_image_index_and_keep_their_order():
    first = Boxes(torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]))
    rois = boxes_to_rois([first, Boxes(torch.zeros(0, 4)), Boxes(torch.tensor([[0.0, 0, 9, 9]]))])
    assert rois.dtype == torch.float32
    assert rois.tolist() == [[0, 1, 2, 3, 4], [0, 5, 6, 7, 8], [2, 0, 0, 9, 9]]


def test_round_trip():
    boxes = [Boxes(torch.rand(n, 4)) for n in (3, 0, 5)]
    back = rois_to_boxes(boxes_to_rois(boxes), num_images=3)
    assert [len(b) for b in back] == [3, 0, 5]
    for one, other in zip(boxes, back):
        assert torch.equal(one.tensor, other.tensor)


def test_no_boxes_at_all():
    assert boxes_to_rois([Boxes(torch.zeros(0, 4))] * 2).shape == (0, 5)


def test_no_images_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        boxes_to_rois([])
