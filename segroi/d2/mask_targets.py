"""Ground-truth masks of Detectron2 as the tensors that mask losses need."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import BitMasks, Instances, PolygonMasks
from detectron2.structures.masks import polygons_to_bitmask
from torch import Tensor

from segroi.layers.masks import masks_in_regions
from segroi.modeling.heads.mask_iou_head import mask_area_ratios


def crop_gt_masks(samples: list[Instances], size: int) -> Tensor:
    """Ground truth of each sample, cropped to its box and resized.

    Args:
        samples: per image, with ``proposal_boxes`` and (where not empty) ``gt_masks``.
        size: height and width M of the result.

    Returns:
        ``Tensor[K, M, M]`` float32 in 0..1 for the samples of all images.
    """
    device = samples[0].proposal_boxes.device
    crops = [torch.zeros(0, size, size, device=device)]
    for sample in samples:
        if len(sample):
            crop = sample.gt_masks.crop_and_resize(sample.proposal_boxes.tensor, size)
            crops.append(crop.to(device, torch.float32))
    return torch.cat(crops)


def region_targets(
    samples: Sequence[Instances], index: Tensor, regions: Tensor, size: tuple[int, int]
) -> Tensor:
    """Ground truth of some samples in regions of their images.

    Args:
        samples: per image, with ``gt_masks`` (where not empty).
        index: int64 ``Tensor[R]`` into the samples of all images.
        regions: ``Tensor[R, 4]`` xyxy px.
        size: (h, w) of the result.

    Returns:
        float32 ``Tensor[R, h, w]`` of 0 and 1.
    """
    targets = regions.new_zeros(len(index), *size, dtype=torch.float32)
    first = 0
    for sample in samples:
        rows = ((index >= first) & (index < first + len(sample))).nonzero()[:, 0]
        if len(rows):
            masks = sample.gt_masks[index[rows] - first]
            targets[rows] = _in_regions(masks, regions[rows], size).to(regions.device)
        first += len(sample)
    return targets


def _in_regions(masks: BitMasks | PolygonMasks, regions: Tensor, size: tuple[int, int]) -> Tensor:
    if isinstance(masks, BitMasks):
        return masks_in_regions(masks.tensor, regions, size)
    drawn = []
    for polygons, (x0, y0, x1, y1) in zip(masks, regions.tolist()):
        scale = (size[1] / (x1 - x0), size[0] / (y1 - y0))
        moved = [((p.reshape(-1, 2) - (x0, y0)) * scale).reshape(-1) for p in polygons]
        drawn.append(torch.from_numpy(polygons_to_bitmask(moved, *size)))
    return torch.stack(drawn).float()


def gt_area_ratios(samples: list[Instances], targets: list[Instances]) -> Tensor:
    """Fraction of each sample's object that its box covers.

    Args:
        samples: per image, with ``proposal_boxes`` and (where not empty) ``gt_index``.
        targets: ground truth per image with ``gt_masks`` (where not empty).

    Returns:
        ``Tensor[K]`` in 0..1 for the samples of all images.
    """
    device = samples[0].proposal_boxes.device
    ratios = [torch.zeros(0, device=device)]
    for sample, target in zip(samples, targets):
        if len(sample):
            bitmaps = _bitmaps(target.gt_masks, target.image_size).to(device)
            ratios.append(mask_area_ratios(bitmaps, sample.proposal_boxes.tensor, sample.gt_index))
    return torch.cat(ratios)


def _bitmaps(masks: BitMasks | PolygonMasks, image_size: tuple[int, int]) -> Tensor:
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, *image_size)
    return masks.tensor
