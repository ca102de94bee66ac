"""segroi's RoIAlign in torchvision's own detection models."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign

from segroi import ops
from segroi.tv.rcnn import to_rois


class FusedRoIAlign(MultiScaleRoIAlign):
    """torchvision's ``MultiScaleRoIAlign``, all levels in one call of segroi's operator.

    Arguments are those of the base class.
    """

    def forward(
        self,
        x: dict[str, Tensor],
        boxes: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> Tensor:
        """Pool the boxes of all images.

        Args:
            x: feature maps Tensor[N, C, H_l, W_l] by name, fine to coarse.
            boxes: Tensor[n, 4] xyxy in px of the input, one of each image.
            image_shapes: (height, width) px of each image before the batch was padded.

        Returns:
            Tensor[K, C, h, w] for the K boxes of all images, in their order.
        """
        features = [x[name] for name in self.featmap_names if name in x]
        height = max(shape[0] for shape in image_shapes)
        return ops.multi_level_roi_align(
            features,
            to_rois([b.float() for b in boxes]),  # a half has no room for pixels
            self.output_size,
            [2.0 ** round(math.log2(f.shape[-2] / height)) for f in features],
            max(0, self.sampling_ratio),  # -1 is adaptive, too
            aligned=False,
            canonical_size=self.canonical_scale,
            canonical_level=self.canonical_level,
        )


def replace_poolers(model: nn.Module) -> list[str]:
    """Let segroi pool in a model of torchvision, wherever ``MultiScaleRoIAlign`` does now.

    Numbers, weights and checkpoints stay the same: poolers have no parameters.

    Args:
        model: any detection model, changed in place.

    Returns:
        The names of the poolers that were replaced.

    Example:
        >>> replace_poolers(torchvision.models.detection.maskrcnn_resnet50_fpn())
        ['roi_heads.box_roi_pool', 'roi_heads.mask_roi_pool']
    """
    found = [name for name, module in model.named_modules() if type(module) is MultiScaleRoIAlign]
    for name in found:
        parent, _, attribute = name.rpartition(".")
        old = model.get_submodule(name)
        new = FusedRoIAlign(
            old.featmap_names,
            old.output_size,
            old.sampling_ratio,
            canonical_scale=old.canonical_scale,
            canonical_level=old.canonical_level,
        )
        setattr(model.get_submodule(parent), attribute, new)
    return found
