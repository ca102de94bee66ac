"""Faster and Mask R-CNN for one image, free of branches that depend on the values of tensors.

The modules are those of the trained model. What is written anew is what stands between them in
torchvision: resizing, the choice of proposals and detections, the pasting of masks. There, Python
lists and ``if`` tie a graph to one number of boxes. The results are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import nms

from segroi.layers.masks import interpolation_weights
from segroi.modeling.roi_extractors import GRoIE
from segroi.tv.rcnn import RoIPool
from segroi.utils.suggest import UsageError

Size = Sequence[int]  # height, width; in a graph of any image size symbols
Features = Mapping[str, Tensor]

_MIN_SIDE = 1e-2  # px; torchvision drops smaller detections


class ExportableRCNN(nn.Module):
    """A model of :func:`segroi.tv.rcnn.rcnn` as a function of one image.

    Args:
        model: the trained model; its modules are shared.

    Raises:
        UsageError: the model draws random numbers, or has heads that have no path.
    """

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        heads = model.roi_heads
        pools = [p for p in (heads.box_roi_pool, heads.mask_roi_pool) if p is not None]
        if heads.has_keypoint() or not all(isinstance(pool, RoIPool) for pool in pools):
            raise UsageError("only the R-CNN models of segroi can be exported")
        extractors = [pool.extractor for pool in pools]
        if any(isinstance(e, GRoIE) and e.aggregation == "random" for e in extractors):
            raise UsageError(
                "GRoIE with aggregation 'random' cannot be exported: it draws a level of every box "
                "anew each time"
            )
        self.model = model
        self.outputs = ("boxes", "labels", "scores", *(("masks",) if heads.has_mask() else ()))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Detections in one image.

        Args:
            image: float32 Tensor[3, H, W] in 0..1.

        Returns:
            ``boxes`` Tensor[N, 4] xyxy px, ``labels`` int64 Tensor[N], ``scores`` Tensor[N] and,
            of Mask R-CNN, ``masks`` Tensor[N, 1, H, W] in 0..1; N may be 0.
        """
        full = image_size(image)
        resized, padded = self._sizes(full)
        x = self.model.transform.normalize(image)[None]
        x = F.interpolate(x, size=resized, mode="bilinear", align_corners=False)
        x = F.pad(x, (0, padded[1] - resized[1], 0, padded[0] - resized[0]))
        features = self.model.backbone(x)
        proposals = self._propose(list(features.values()), padded, resized)
        boxes, scores, labels = self._detect(features, proposals, resized)
        ratios = [boxes.new_ones(()) * full[axis] / resized[axis] for axis in (1, 0)]
        result = boxes * torch.stack(ratios * 2)
        if "masks" not in self.outputs:
            return result, labels, scores
        return result, labels, scores, self._masks(features, boxes, labels, result, full)

    def _sizes(self, full: Size) -> tuple[list[int], list[int]]:
        """(height, width) that the image is resized to, and then padded to."""
        transform = self.model.transform
        short, long = torch.sym_min(*full), torch.sym_max(*full)
        bounds = transform.min_size[-1], transform.max_size
        # In integers: a runtime rounds quotients of floats in its own way.
        resized = [torch.sym_min(s * bounds[0] // short, s * bounds[1] // long) for s in full]
        step = transform.size_divisible
        return resized, [(side + step - 1) // step * step for side in resized]

    def _propose(self, maps: list[Tensor], padded: Size, size: Size) -> Tensor:
        """The proposals Tensor[K, 4] of the image, best first."""
        rpn = self.model.rpn
        grids = [image_size(m) for m in maps]
        strides = [[p // g for p, g in zip(padded, grid)] for grid in grids]
        anchors = rpn.anchor_generator.grid_anchors(grids, strides)
        boxes, scores, levels = [], [], []
        for level, (logit, offset, anchor) in enumerate(zip(*rpn.head(maps), anchors)):
            logit, offset = concat_box_prediction_layers([logit], [offset])
            count = torch.sym_min(rpn.pre_nms_top_n(), image_size(logit)[0])
            best, index = logit[:, 0].topk(count)
            boxes.append(rpn.box_coder.decode_single(offset[index], anchor[index]))
            scores.append(best.sigmoid())
            levels.append(torch.full_like(index, level))
        candidates = _clip(torch.cat(boxes), size), torch.cat(scores), torch.cat(levels)
        kept = (_sides(candidates[0]) >= rpn.min_size) & (candidates[1] >= rpn.score_thresh)
        return best_survivors(*candidates, kept, rpn.nms_thresh, size, rpn.post_nms_top_n())[0]

    def _detect(
        self, features: Features, proposals: Tensor, size: Size
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of the detections."""
        heads = self.model.roi_heads
        crops = _pool(heads.box_roi_pool, features, proposals)
        logits, offsets = (x[:-1] for x in heads.box_predictor(heads.box_head(crops)))
        scores = logits.softmax(-1)[:, 1:]
        boxes = heads.box_coder.decode_single(offsets, proposals).unflatten(1, (-1, 4))[:, 1:]
        labels = torch.arange(1, logits.shape[1], device=logits.device).expand_as(scores)
        boxes, scores, labels = _clip(boxes.flatten(0, 1), size), scores.flatten(), labels.flatten()
        kept = (scores > heads.score_thresh) & (_sides(boxes) >= _MIN_SIDE)
        limit = heads.detections_per_img
        return best_survivors(boxes, scores, labels, kept, heads.nms_thresh, size, limit)

    def _masks(
        self, features: Features, boxes: Tensor, labels: Tensor, result: Tensor, full: Size
    ) -> Tensor:
        heads = self.model.roi_heads
        crops = _pool(heads.mask_roi_pool, features, boxes)
        logits = heads.mask_predictor(heads.mask_head(crops))[:-1]
        rows = torch.arange(labels.shape[0], device=labels.device)
        return paste_probabilities(logits[rows, labels].sigmoid(), result, full)


def paste_probabilities(masks: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """Masks of the whole image, as torchvision's ``paste_masks_in_image`` makes them one by one.

    Masks get a margin of one cell, boxes grow accordingly and are cut to whole pixels.

    Args:
        masks: Tensor[N, m, m] in 0..1, what the boxes show.
        boxes: Tensor[N, 4] xyxy px.
        size: (height, width) of the image.

    Returns:
        Tensor[N, 1, height, width], 0 outside the boxes.
    """
    cells = masks.shape[-1] + 2
    centre = (boxes[:, :2] + boxes[:, 2:]) * 0.5
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * (cells / masks.shape[-1])
    low = (centre - half).long().float()
    high = (centre + half).long().float() + 1
    columns, rows = (
        weights * inside[..., None]
        for weights, inside in (
            interpolation_weights(low[:, axis], high[:, axis], 0, size[1 - axis], cells)
            for axis in (0, 1)
        )
    )
    return (rows @ F.pad(masks, (1, 1, 1, 1)) @ columns.transpose(1, 2))[:, None]


def _pool(pool: RoIPool, features: Features, boxes: Tensor) -> Tensor:
    """Crops of the boxes and of one more: extractors and runtimes treat no box at all apart."""
    boxes = torch.cat([boxes, boxes.new_zeros(1, 4)])
    return pool.extractor([features[level] for level in pool.levels], F.pad(boxes, (1, 0)))


def best_survivors(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    kept: Tensor,
    threshold: float,
    size: Size,
    limit: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``limit`` best of the ``kept`` boxes that survive suppression within their group."""
    index = kept.nonzero()[:, 0]
    boxes, scores, groups = boxes[index], scores[index], groups[index]
    # Groups are moved apart, for then one suppression serves all.
    apart = (groups * (torch.sym_max(*size) + 1)).to(boxes.dtype)[:, None]
    chosen = survivors(boxes + apart, scores, threshold)[:limit]
    return boxes[chosen], scores[chosen], groups[chosen]


def survivors(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression of any number of boxes with coordinates >= 0, scores >= 0.

    torchvision promises the exporter at least two survivors, so there are two more boxes, which
    overlap nothing and come last.
    """
    more = boxes.new_tensor([[-2.0, -2.0, -1.0, -1.0], [-4.0, -4.0, -3.0, -3.0]])
    every = torch.cat([boxes, more]), torch.cat([scores, scores.new_tensor([-1.0, -2.0])])
    return nms(*every, threshold)[:-2]


def image_size(x: Tensor) -> list[int]:
    """Height and width, as numbers where a trace has tensors: a trace is of one size."""
    return [int(side) if isinstance(side, Tensor) else side for side in x.shape[-2:]]


def _clip(boxes: Tensor, size: Size) -> Tensor:
    x, y = (boxes[:, axis::2].clamp(min=0, max=size[1 - axis]) for axis in (0, 1))
    return torch.stack([x, y], dim=-1).flatten(1)


def _sides(boxes: Tensor) -> Tensor:
    """The shorter side Tensor[K] of the boxes."""
    return (boxes[:, 2:] - boxes[:, :2]).amin(dim=1)
