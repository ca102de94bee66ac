import numpy as np
import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.structures import Boxes, Instances
from torch import nn

from segroi.d2.predict import Detector


class Recorder(nn.Module):
    """Keeps its inputs; finds one object of class 4 that fills the image."""

    def forward(self, inputs):
        self.inputs = inputs
        found = []
        for i in inputs:
            size = (i["height"], i["width"])
            instances = Instances(
                size, pred_boxes=Boxes(torch.tensor([[0.0, 0, size[1], size[0]]]))
            )
            instances.scores, instances.pred_classes = torch.tensor([0.5]), torch.tensor([4])
            instances.pred_masks = torch.ones(1, *size, dtype=torch.bool)
            found.append({"instances": instances})
        return found


def test_images_are_given_as_detectron2_reads_them():
    image = torch.zeros(3, 20, 30)
    image[0] = 1.0  # red
    for input_format, channel in (("RGB", 0), ("BGR", 2)):
        model = Recorder()
        Detector(model, ResizeShortestEdge([40, 40], 100), input_format)([image])
        (given,) = model.inputs
        assert given["image"].shape == (3, 40, 60) and given["image"].dtype == torch.uint8
        assert (given["height"], given["width"]) == (20, 30)
        expected = np.zeros(3)
        expected[channel] = 255
        np.testing.assert_array_equal(given["image"].float().mean((1, 2)), expected)


def test_detections_are_those_of_torchvision():
    detector = Detector(Recorder(), ResizeShortestEdge([40, 40], 100))
    first, second = detector([torch.zeros(3, 20, 30), torch.zeros(3, 50, 10)])
    assert first["boxes"].tolist() == [[0, 0, 30, 20]] and first["labels"].tolist() == [5]
    assert second["masks"].shape == (1, 1, 50, 10) and second["masks"].unique().tolist() == [1.0]
