"""One-stage models as Detectron2 meta-architectures: the core models plus conversion."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from torch import Tensor

from segroi.modeling.ssd.branches import InstanceBranches
from segroi.modeling.ssd.detector import SSD
from segroi.modeling.ssd.ssd_isb import SSDISB as CoreSSDISB
from segroi.modeling.ssd.ssd_isb import Crops, ssd_isb

_DEPTH = 255.0  # Detectron2's pixels


@META_ARCH_REGISTRY.register()
class SSDISB(CoreSSDISB):
    """:class:`~segroi.modeling.ssd.ssd_isb.SSDISB` on Detectron2's inputs; its parameter names.

    ``pred_masks`` are masks of the whole image (a mask lies in the encompassing box, which
    ``pred_regions`` holds, and may leave the detector's box).
    """

    @configurable
    def __init__(
        self,
        detector: SSD,
        branches: InstanceBranches,
        image_size: tuple[int, int],
        pixel_mean: list[float],
        pixel_std: list[float],
        num_classes: int,
        input_format: str = "RGB",
        crops: Crops = "boxes",
    ) -> None:
        """Build the model.

        Args:
            detector: the box detector.
            branches: the instance segmentation branches.
            image_size: (height, width) of the network's input.
            pixel_mean: of the channels of images in 0..255.
            pixel_std: of the channels of images in 0..255.
            num_classes: classes of the detector; objects of higher classes are left out.
            input_format: order of the channels of images, "RGB" or "BGR".
            crops: what the branches learn from, "boxes" or "anchors".
        """
        unit = ([v / _DEPTH for v in values] for values in (pixel_mean, pixel_std))
        super().__init__(detector, branches, image_size, *unit, crops=crops)
        self.num_classes, self.input_format = num_classes, input_format

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read ``MODEL.SSD_ISB``."""
        node = cfg.MODEL.SSD_ISB
        rates = list(node.ATROUS_RATES)
        core = ssd_isb(
            num_classes=node.NUM_CLASSES,
            family=node.FAMILY,
            depth_multiplier=node.DEPTH_MULTIPLIER,
            skips=node.SKIPS,
            shapes=node.SHAPES or None,
            class_masks=node.CLASS_MASKS,
            atrous_rates=rates[0] if len(rates) == 1 else rates,
            condition_on_box=node.CONDITION_ON_BOX,
            classification=node.CLASSIFICATION,
            norm_momentum=node.NORM_MOMENTUM,
            frozen_stride=node.FROZEN_STRIDE,
            frozen_statistics=node.FROZEN_STATISTICS,
            mask_weight=node.MASK_WEIGHT or None,
        )
        core.detector.detections_per_image = cfg.TEST.DETECTIONS_PER_IMAGE
        return {
            "detector": core.detector,
            "branches": core.branches,
            "image_size": tuple(node.IMAGE_SIZE),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "num_classes": node.NUM_CLASSES,
            "input_format": cfg.INPUT.FORMAT,
            "crops": node.CROPS,
        }

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.pixel_mean.device

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Losses in training, otherwise ``{"instances": Instances}`` for each image."""
        images = [x["image"].to(self.device).float() / _DEPTH for x in batched_inputs]
        if self.training:
            targets = [self._target(x["instances"].to(self.device)) for x in batched_inputs]
            return super().forward(images, targets)
        sizes = [
            (int(x.get("height", image.shape[1])), int(x.get("width", image.shape[2])))
            for x, image in zip(batched_inputs, images)
        ]
        found = self._detect(self.detector(self.preprocess(images)), sizes)
        return [{"instances": _instances(f, size)} for f, size in zip(found, sizes)]

    def _target(self, instances: Instances) -> dict[str, Tensor]:
        instances = instances[instances.gt_classes < self.num_classes]
        if len(instances) and instances.has("gt_masks"):
            masks = instances.gt_masks
            if isinstance(masks, PolygonMasks):
                masks = BitMasks.from_polygon_masks(masks, *instances.image_size)
            masks = masks.tensor
        else:
            masks = torch.zeros(len(instances), *instances.image_size, device=self.device)
        boxes, labels = instances.gt_boxes.tensor, instances.gt_classes + 1
        return {"boxes": boxes, "labels": labels, "masks": masks.to(self.device)}


def _instances(found: dict[str, Tensor], size: tuple[int, int]) -> Instances:
    return Instances(
        size,
        pred_boxes=Boxes(found["boxes"]),
        scores=found["scores"],
        pred_classes=found["labels"] - 1,
        pred_masks=found["masks"][:, 0],
        pred_regions=Boxes(found["regions"]),
    )
