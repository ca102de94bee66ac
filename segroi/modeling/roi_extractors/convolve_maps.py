"""1x1 convolutions of maps that are sampled afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from segroi.ops._layout import empty_large

# Gathering pixels costs about as much as convolving a tenth of them.
WORTH_GATHERING = 0.9
TILE = 8  # gathered pixels are convolved as small squares: a tenth faster than one product


def pixels_read(boxes: Tensor, box_index: Tensor, size: Sequence[int]) -> Tensor:
    """Pixels that bilinear samples inside the boxes read, those on the rim included.

    Args:
        boxes: Tensor[K, 4], (x0, y0, x1, y1) in pixels; 0 is the centre of the first one. Boxes
            outside the map read its rim; coordinates that are no numbers are taken for 0.
        box_index: integer Tensor[K], the image of each box; one out of range is moved into it.
        size: N, H and W of the maps.

    Returns:
        bool Tensor[N, H, W].
    """
    images, height, width = size
    if 0 in size:
        return torch.zeros(*size, dtype=torch.bool, device=boxes.device)
    limit = boxes.new_tensor([width - 1, height - 1])
    cells = boxes.nan_to_num().floor()
    low = cells[:, :2].clamp(min=0).minimum(limit)
    high = (cells[:, 2:] + 1).maximum(low).minimum(limit) + 1
    (x0, y0), (x1, y1) = low.long().unbind(1), high.long().unbind(1)
    image = box_index.long().clamp(0, images - 1)
    # How many boxes begin less how many end, summed along both axes, is how many cover a pixel.
    steps = torch.zeros(images, height + 1, width + 1, dtype=torch.int32, device=boxes.device)
    for y, x, step in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        steps.index_put_((image, y, x), steps.new_tensor(step), accumulate=True)
    return steps.cumsum(1).cumsum(2)[:, :-1, :-1] > 0


def convolve_pixels(features: Tensor, weight: Tensor, where: Tensor | None = None) -> Tensor:
    """1x1 convolution. On a CPU one product of matrices, which reads any layout as it is.

    Args:
        features: Tensor[N, C, H, W].
        weight: Tensor[O, C, 1, 1].
        where: bool Tensor[N, H, W] of the pixels that are asked for, None for all; where they are
            few, they are gathered, and the others are 0.

    Returns:
        Tensor[N, O, H, W], channels_last on a CPU.
    """
    if features.device.type != "cpu" or torch.compiler.is_exporting():
        return F.conv2d(features, weight)
    pixels, matrix = features.flatten(2).transpose(1, 2), weight.flatten(1).t()
    if where is None or where.sum() >= WORTH_GATHERING * where.numel():
        product = torch.bmm(pixels, matrix.expand(features.shape[0], -1, -1))
        return product.unflatten(1, features.shape[2:]).permute(0, 3, 1, 2)
    places = [mask.nonzero()[:, 0] for mask in where.flatten(1)]
    convolved = [_convolve_tiles(image, weight, at) for image, at in zip(pixels, places)]
    size = (features.shape[0], weight.shape[0], *features.shape[2:])
    result = empty_large(convolved[0], size, channels_last=True).zero_()
    for rows, at, values in zip(result.permute(0, 2, 3, 1).flatten(1, 2), places, convolved):
        rows.index_copy_(0, at, values)
    return result


def _convolve_tiles(pixels: Tensor, weight: Tensor, at: Tensor) -> Tensor:
    """``Tensor[len(at), O]``: a 1x1 convolution of some rows of ``Tensor[H W, C]``."""
    filled = torch.cat([at, at.new_zeros(-len(at) % TILE**2)])
    tiles = pixels.index_select(0, filled).view(-1, TILE, TILE, pixels.shape[1])
    convolved = F.conv2d(tiles.permute(0, 3, 1, 2), weight).permute(0, 2, 3, 1)
    return convolved.reshape(len(filled), weight.shape[0])[: len(at)]


def convolve_maps(
    features: Sequence[Tensor], weights: Sequence[Tensor], where: Sequence[Tensor | None]
) -> list[tuple[Tensor, ...]]:
    """The maps convolved with each of the weights, in one product for all weights.

    Args:
        features: Tensor[N, C, H_l, W_l] per level.
        weights: Tensor[O, C, 1, 1] each.
        where: see `convolve_pixels`, per level.

    Returns:
        for each weight Tensor[N, O, H_l, W_l] per level.
    """
    if not weights:
        return []
    joint, sizes = torch.cat(list(weights)), [weight.shape[0] for weight in weights]
    parts = (convolve_pixels(f, joint, w).split(sizes, dim=1) for f, w in zip(features, where))
    return list(zip(*parts))
