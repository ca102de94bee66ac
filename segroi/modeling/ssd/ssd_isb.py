"""SSD-ISB: SSD and instance segmentation branches, from images to masks in one stage.

Legend: N images, G objects of an image, K detections of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segroi.layers.masks import masks_in_regions, paste_masks
from segroi.modeling.backbones.mobilenet_v1 import MobileNetV1
from segroi.modeling.ssd.branches import BranchMasks, InstanceBranches
from segroi.modeling.ssd.detector import SSD, SSDOutput
from segroi.modeling.ssd.families import BranchFamily, branch_family
from segroi.modeling.ssd.loss import Classification
from segroi.modeling.ssd.matching import matched_anchors

_MAPS = ("conv13", "conv11", "conv5")  # strides 32, 16, 8
_STRIDE = 32

Crops = Literal["boxes", "anchors"]
Images = Sequence[Tensor]
Targets = Sequence[Mapping[str, Tensor]]


class SSDISB(nn.Module):
    """Real-time instance segmentation by encompassing boxes (thesis, chapters 3 and 5).

    Images are warped to a fixed size. SSD finds boxes; a box grows to the smallest box of whole
    cells of stride 32, whose crop a branch turns into a mask. In training the crops are those of
    the ground truth, and the branches send no gradient into the trunk. Called as torchvision's
    detection models are.

    Args:
        detector: the box detector.
        branches: the instance segmentation branches.
        image_size: (height, width) in px of the network's input, multiples of 32.
        pixel_mean: of the channels of images in 0..1.
        pixel_std: of the channels of images in 0..1.
        crops: what the branches learn from: the "boxes" of the objects or, much as Mask R-CNN
            learns from proposals, the default "anchors" matched to them. With anchors the training
            of the thesis did not converge (section 3.1.4); they are here for comparison.
    """

    def __init__(
        self,
        detector: SSD,
        branches: InstanceBranches,
        image_size: tuple[int, int] = (640, 640),
        pixel_mean: Sequence[float] = (0.5, 0.5, 0.5),
        pixel_std: Sequence[float] = (0.5, 0.5, 0.5),
        crops: Crops = "boxes",
    ) -> None:
        super().__init__()
        if crops not in ("boxes", "anchors"):
            raise ValueError(f"SSDISB: crops must be boxes or anchors, got {crops!r}")
        self.crops = crops
        if any(side < 1 or side % _STRIDE for side in image_size):
            raise ValueError(f"SSDISB: image_size must be multiples of 32, got {image_size}")
        self.detector, self.branches = detector, branches
        self.image_size = (int(image_size[0]), int(image_size[1]))
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    def backbone(self) -> MobileNetV1:
        """The trunk, as ImageNet weights fill it."""
        return self.detector.backbone

    def forward(
        self, images: Images, targets: Targets | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training, detections otherwise.

        Args:
            images: of each image Tensor[3, H, W] in 0..1, any size.
            targets: of each image ``boxes`` Tensor[G, 4] xyxy px, ``labels`` int Tensor[G] from 1
                on, and ``masks`` Tensor[G, H, W] of 0 and 1.

        Returns:
            In training ``loss_box``, ``loss_cls`` and ``loss_mask``. Otherwise for each image
            ``boxes`` Tensor[K, 4] xyxy px, ``labels``, ``scores``, ``masks`` bool
            Tensor[K, 1, H, W], and ``regions`` Tensor[K, 4] xyxy px, the encompassing boxes in
            which the masks lie (a mask may leave its box: that corrects errors of the box).
        """
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        output = self.detector(self.preprocess(images))
        if not self.training:
            return self._detect(output, sizes)
        if targets is None:
            raise ValueError("SSDISB: targets must be given in training, got None")
        return self._losses(output, targets, sizes)

    def preprocess(self, images: Images) -> Tensor:
        """The network's input Tensor[N, 3, *image_size]: warped and normalised."""
        warped = [
            F.interpolate(image[None].float(), self.image_size, mode="bilinear") for image in images
        ]
        batch = (torch.cat(warped) - self.pixel_mean) / self.pixel_std
        return batch.contiguous(memory_format=torch.channels_last)

    def _segment(self, output: SSDOutput, unit_boxes: Sequence[Tensor]) -> list[BranchMasks]:
        height, width = self.image_size
        boxes = torch.cat(list(unit_boxes)) * output.anchors.new_tensor([width, height] * 2)
        image = _image_of(unit_boxes)
        return self.branches(self.segmented_maps(output), boxes, image, self.image_size)

    def segmented_maps(self, output: SSDOutput) -> list[Tensor]:
        """The maps that the branches read, coarse to fine."""
        steps = len(self.branches.branches[0].skips) + 1
        return [output.features[name] for name in _MAPS[:steps]]

    def _losses(
        self, output: SSDOutput, targets: Targets, sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        boxes = _unit_boxes(targets, sizes)
        losses = self.detector.losses(output, boxes, [t["labels"] for t in targets])
        return {**losses, "loss_mask": self.mask_loss(output, targets, sizes)}

    def mask_loss(
        self, output: SSDOutput, targets: Targets, sizes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Weighted loss of the branches on the crops of the ground truth.

        Args:
            output: of which the ``features`` and the ``anchors`` count.
            targets: as :meth:`forward` takes them.
            sizes: (height, width) of the images as given.
        """
        boxes = _unit_boxes(targets, sizes)
        objects = [torch.arange(len(b), device=b.device) for b in boxes]
        if self.crops == "anchors":
            matches = [matched_anchors(output.anchors, b) for b in boxes]
            boxes, objects = [output.anchors[a] for a, _ in matches], [g for _, g in matches]
        image = _image_of(boxes)
        labels = torch.cat([t["labels"][g] for t, g in zip(targets, objects)])
        loss = output.offsets.new_zeros(())
        for masks in self._segment(output, boxes):
            target = self._mask_targets(masks, image, objects, targets, sizes)
            logits = masks.of_class(labels).float()
            total = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
            loss = loss + total / max(target.numel(), 1)
        return self.branches.family.mask_weight * loss

    def _mask_targets(
        self,
        masks: BranchMasks,
        image: Tensor,
        objects: Sequence[Tensor],
        targets: Targets,
        sizes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """The objects' masks in the regions of a branch, Tensor[R, h, w]."""
        parts = [masks.logits.new_zeros(0, *masks.logits.shape[-2:], dtype=torch.float32)]
        first = 0
        for n, (chosen, target, size) in enumerate(zip(objects, targets, sizes)):
            rows = image[masks.index] == n
            regions = self._to_image(masks.regions[rows], size)
            full = target["masks"][chosen[masks.index[rows] - first]]
            parts.append(masks_in_regions(full, regions, masks.logits.shape[-2:]))
            first += len(chosen)
        return torch.cat(parts)

    def _to_image(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        return boxes * (_pixels(size, boxes) / _pixels(self.image_size, boxes))

    @torch.no_grad()
    def _detect(
        self, output: SSDOutput, sizes: Sequence[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        found = self.detector.detect(output)
        boxes = [d["boxes"] for d in found]
        image, labels = _image_of(boxes), torch.cat([d["labels"] for d in found])
        masks = self._segment(output, boxes)
        results, first = [], 0
        for n, (detections, size) in enumerate(zip(found, sizes)):
            count = len(detections["boxes"])
            has_mask = torch.zeros(count, dtype=torch.bool, device=labels.device)
            for m in masks:
                has_mask[m.index[image[m.index] == n] - first] = True
            place = has_mask.cumsum(0) - 1
            kept = {name: values[has_mask] for name, values in detections.items()}
            kept["boxes"] = kept["boxes"] * _pixels(size, kept["boxes"])
            pasted = torch.zeros(len(kept["boxes"]), *size, dtype=torch.bool, device=labels.device)
            regions = torch.zeros_like(kept["boxes"])
            for m in masks:
                rows = image[m.index] == n
                target = place[m.index[rows] - first]
                regions[target] = self._to_image(m.regions[rows], size)
                logits = m.of_class(labels)[rows]
                paste_masks(logits, regions[target], size, out=pasted, index=target)
            results.append({**kept, "masks": pasted[:, None], "regions": regions})
            first += count
        return results


def ssd_isb(
    num_classes: int = 1,
    family: str | BranchFamily = "multi_shape",
    depth_multiplier: float = 1.0,
    image_size: tuple[int, int] = (640, 640),
    skips: int = 2,
    shapes: Sequence[Sequence[int]] | None = None,
    class_masks: bool = False,
    atrous_rates: int | Sequence[int] = 1,
    condition_on_box: bool = False,
    classification: Classification = "softmax",
    norm_momentum: float = 0.0003,
    pixel_mean: Sequence[float] = (0.5, 0.5, 0.5),
    pixel_std: Sequence[float] = (0.5, 0.5, 0.5),
    frozen_stride: int = 0,
    frozen_statistics: bool = False,
    mask_weight: float | None = None,
    crops: Crops = "boxes",
) -> SSDISB:
    """Build SSD-ISB.

    Args:
        num_classes: classes without the background.
        family: which branches; see :data:`segroi.modeling.ssd.families.FAMILIES`.
        depth_multiplier: of the trunk.
        image_size: (height, width) in px of the network's input.
        skips: 2 for FCN8, 1 for FCN16, 0 for none.
        shapes: other branch shapes, (height, width) in cells.
        class_masks: one mask for each class instead of one for all.
        atrous_rates: dilation of the branches, one for all or one for each.
        condition_on_box: tell the branches where the box lies (beyond the thesis).
        classification: "softmax" or "sigmoid".
        norm_momentum: weight of a new batch in the running statistics.
        pixel_mean: of the channels of images in 0..1.
        pixel_std: of the channels of images in 0..1.
        frozen_stride: see :class:`~segroi.modeling.ssd.detector.SSD`.
        frozen_statistics: see :class:`~segroi.modeling.ssd.detector.SSD`.
        mask_weight: weight of the mask loss, if other than the family's.
        crops: see :class:`SSDISB`.

    Example:
        >>> model = ssd_isb(family="single_branch", depth_multiplier=0.25, image_size=(64, 64))
        >>> detections = model.eval()([torch.rand(3, 48, 100)])
        >>> detections[0]["masks"].shape[1:]
        torch.Size([1, 48, 100])
    """
    detector = SSD(
        num_classes,
        depth_multiplier,
        classification=classification,
        norm_momentum=norm_momentum,
        frozen_stride=frozen_stride,
        frozen_statistics=frozen_statistics,
    )
    if mask_weight is not None:
        family = replace(branch_family(family), mask_weight=mask_weight)
    channels = [detector.backbone.out_channels[name] for name in _MAPS]
    branches = InstanceBranches(
        channels[0],
        channels[1 : 1 + skips],
        family,
        shapes,
        num_classes if class_masks else 1,
        atrous_rates,
        condition_on_box,
    )
    return SSDISB(detector, branches, image_size, pixel_mean, pixel_std, crops)


def _unit_boxes(targets: Targets, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The boxes of the targets in units of their image."""
    return [t["boxes"].float() / _pixels(s, t["boxes"]) for t, s in zip(targets, sizes)]


def _pixels(size: tuple[int, int], like: Tensor) -> Tensor:
    return torch.tensor([size[1], size[0]] * 2, dtype=torch.float32, device=like.device)


def _image_of(boxes: Sequence[Tensor]) -> Tensor:
    """Image of each of the concatenated boxes."""
    return torch.cat([b.new_full((len(b),), n, dtype=torch.int64) for n, b in enumerate(boxes)])
