"""Grid head: locates a box by a grid of points on its border and centre.

X. Lu et al., "Grid R-CNN". Legend: K RoIs, a grid of G x G points in row-major order (P = G * G,
point p in row p // G and column p % G), features of S x S cells, heatmaps of 2S x 2S cells. A point
is sought in a window of 2S x 2S cells of the 4S x 4S map that covers twice the RoI's width and
height around its centre, because it may lie outside the RoI.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segroi.layers.conv import ConvBlock


class PointFusion(nn.Module):
    """Add to the features of each grid point a message of each of its 4-neighbours (eq. (2)).

    A message is a depthwise 5x5 and a 1x1 convolution of its own; all of them run at once as
    grouped convolutions.

    Args:
        grid_size: G.
        channels: features per point.
    """

    source: Tensor
    routing: Tensor

    def __init__(self, grid_size: int, channels: int) -> None:
        super().__init__()
        points = torch.arange(grid_size**2)
        row, column = points // grid_size, points % grid_size
        distance = (row[:, None] - row).abs() + (column[:, None] - column).abs()
        source, target = (distance == 1).nonzero(as_tuple=True)
        self.register_buffer("source", source, persistent=False)
        routing = F.one_hot(target, grid_size**2).mT.float()
        self.register_buffer("routing", routing, persistent=False)
        width = len(source) * channels
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.pointwise = nn.Conv2d(width, width, 1, groups=len(source))

    def forward(self, points: Tensor, senders: Tensor) -> Tensor:
        """Return points + messages of the senders, all Tensor[K, P, channels, S, S]."""
        messages = self.depthwise(senders[:, self.source].flatten(1, 2))
        messages = self.pointwise(messages).unflatten(1, (len(self.source), -1))
        return points + torch.einsum("pm,kmcyx->kpcyx", self.routing, messages)


class GridHead(nn.Module):
    """Heatmaps of grid points, before and after two orders of fusion between neighbours.

    Args:
        in_channels: channels of the RoI features.
        grid_size: points per axis.
        point_channels: features per point.
        num_convs: convolutions, the first of stride 2.
        norm_groups: groups of their GroupNorm.
    """

    def __init__(
        self,
        in_channels: int = 256,
        *,
        grid_size: int = 3,
        point_channels: int = 64,
        num_convs: int = 8,
        norm_groups: int = 36,
    ) -> None:
        super().__init__()
        self.grid_size = grid_size
        points = grid_size**2
        width = points * point_channels
        norm = partial(nn.GroupNorm, norm_groups)
        self.convs = nn.Sequential(
            ConvBlock(in_channels, width, 3, stride=2, norm=norm),
            *(ConvBlock(width, width, 3, norm=norm) for _ in range(num_convs - 1)),
        )
        self.first_order = PointFusion(grid_size, point_channels)
        self.second_order = PointFusion(grid_size, point_channels)
        self.heatmaps = nn.Sequential(
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, groups=points),
            nn.GroupNorm(points, width),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(width, points, 4, stride=2, padding=1, groups=points),
        )
        for layer in (self.heatmaps[0], self.heatmaps[3]):
            nn.init.normal_(layer.weight, std=0.001)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.heatmaps[3].bias, -math.log(99))  # few cells are positive

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the heatmaps.

        Args:
            x: Tensor[K, in_channels, S, S].

        Returns:
            fused and unfused logits, each Tensor[K, P, 2S, 2S]; the second serves in training.
        """
        x = self.convs(x)
        points = x.unflatten(1, (self.grid_size**2, -1))
        fused = self.second_order(points, self.first_order(points, points))
        return self.heatmaps(fused.flatten(1, 2)), self.heatmaps(x)


def _windows(grid_size: int, map_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """First row and first column, in the map, of each point's window: int64 Tensor[P] each."""
    # A point at fraction t of the RoI lies at (1/4 + t/2) of the map, its window half a map around.
    starts = torch.arange(grid_size, device=device) * map_size // (2 * (grid_size - 1))
    return starts.repeat_interleave(grid_size), starts.repeat(grid_size)


def _expand(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Corner and size, Tensor[K, 2] each, of the boxes grown to twice their width and height."""
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] - size / 2, 2 * size


def grid_targets(
    rois: Tensor, gt_boxes: Tensor, *, grid_size: int = 3, heatmap_size: int = 28, radius: int = 1
) -> Tensor:
    """Heatmaps that are 1 in the cells around each grid point of the ground truth.

    Args:
        rois: Tensor[K, 4], xyxy in px.
        gt_boxes: Tensor[K, 4], the ground truth of each RoI.
        grid_size: points per axis.
        heatmap_size: cells per axis of the result, half of the map.
        radius: in cells; 1 marks the cell of the point and its four neighbours.

    Returns:
        float32 Tensor[K, P, heatmap_size, heatmap_size]; a point outside its window leaves 0.
    """
    map_size = 2 * heatmap_size
    corner, size = _expand(rois)
    t = torch.linspace(0, 1, grid_size, device=rois.device)
    points = gt_boxes[:, None, :2] + t[:, None] * (gt_boxes[:, None, 2:] - gt_boxes[:, None, :2])
    cells = ((points - corner[:, None]) / size[:, None].clamp(min=1e-6) * map_size).floor()
    column, row = cells.unbind(dim=-1)  # [K, G] each
    first_row, first_column = _windows(grid_size, map_size, rois.device)
    span = torch.arange(heatmap_size, device=rois.device)
    rows = row.repeat_interleave(grid_size, dim=1)[..., None] - (first_row[:, None] + span)
    columns = column.repeat(1, grid_size)[..., None] - (first_column[:, None] + span)
    return (rows[..., :, None].square() + columns[..., None, :].square() <= radius**2).float()


def grid_loss(fused: Tensor, unfused: Tensor, targets: Tensor, weight: float = 15.0) -> Tensor:
    """Binary cross entropy of both heatmaps.

    Args:
        fused: logits Tensor[K, P, M, M].
        unfused: logits Tensor[K, P, M, M].
        targets: Tensor[K, P, M, M].
        weight: factor of the loss.

    Returns:
        Tensor[], 0 with zero gradients without RoIs.
    """
    total = sum(
        F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")
        for logits in (fused, unfused)
    )
    return weight * total / max(targets.numel(), 1)


def decode_grid(rois: Tensor, heatmaps: Tensor) -> Tensor:
    """Boxes whose sides are the means of the grid points on them, weighted by their confidence.

    Args:
        rois: Tensor[K, 4], xyxy in px.
        heatmaps: logits Tensor[K, P, M, M].

    Returns:
        Tensor[K, 4], xyxy in px, not clipped.
    """
    count, points, height, width = heatmaps.shape
    grid_size = math.isqrt(points)
    score, cell = heatmaps.flatten(2).max(dim=-1)
    first_row, first_column = _windows(grid_size, 2 * height, heatmaps.device)
    corner, size = _expand(rois)
    x = corner[:, :1] + (first_column + cell % width + 0.5) / (2 * width) * size[:, :1]
    y = corner[:, 1:] + (first_row + cell // width + 0.5) / (2 * height) * size[:, 1:]
    grid = (count, grid_size, grid_size)
    weight, x, y = (value.reshape(grid).to(rois.dtype) for value in (score.sigmoid(), x, y))
    sides = (
        (x[:, :, 0], weight[:, :, 0]),
        (y[:, 0], weight[:, 0]),
        (x[:, :, -1], weight[:, :, -1]),
        (y[:, -1], weight[:, -1]),
    )
    return torch.stack([(v * w).sum(1) / w.sum(1) for v, w in sides], dim=1)
