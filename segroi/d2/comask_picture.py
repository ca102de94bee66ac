"""Pictures of a CoMask model's dense boxes, from Detectron2's inputs and outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.modeling import GeneralizedRCNN

from segroi.utils.dense_box_picture import draw_dense_boxes


@torch.no_grad()
def dense_box_picture(
    model: GeneralizedRCNN, inputs: dict[str, Any], index: int = 0
) -> np.ndarray | None:
    """Draw one detection of an image by :func:`~segroi.utils.dense_box_picture.draw_dense_boxes`.

    Args:
        model: with ``CoMaskROIHeads`` as ``roi_heads`` whose boxes are averages.
        inputs: one image, as Detectron2's dataset mapper gives it.
        index: rank of the detection by score, 0 is the best.

    Returns:
        uint8 RGB ``[h, w, 3]``, or None if there is no such detection.
    """
    heads, training = model.roi_heads, model.training
    model.eval()
    heads.keep_dense_boxes = True
    found = model.inference([inputs], do_postprocess=False)[0].to("cpu")
    heads.keep_dense_boxes = False
    model.train(training)
    if index >= len(found):
        return None
    detection = found[index]
    mask = paste_masks_in_image(detection.pred_masks[:, 0], detection.pred_boxes, found.image_size)
    image = inputs["image"].permute(1, 2, 0).numpy()
    if model.input_format == "BGR":
        image = image[..., ::-1]
    return draw_dense_boxes(
        image,
        detection.dense_boxes[0].numpy(),
        detection.dense_weights[0].numpy(),
        detection.pred_boxes.tensor[0].numpy(),
        mask[0].numpy(),
        heads.threshold,
        f"class {detection.pred_classes.item()}, score {detection.scores.item():.2f}",
    )
