"""Ground-truth masks of Detectron2 as the tensors that mask losses need."""

from __future__ import annotations

import torch
from detectron2.structures import BitMasks, Instances, PolygonMasks
from torch import Tensor

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
