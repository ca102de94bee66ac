"""multi_level_roi_align: RoIAlign of a whole feature pyramid in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segroi._extension import is_built
from segroi.ops._checks import FLOATS, INTEGERS, choice, dense, is_int, pair, wrong
from segroi.ops._layout import is_channels_last, layout_of
from segroi.ops.reference.multi_level_roi_align import MAX_SAMPLES, finest_level
from segroi.ops.reference.multi_level_roi_align import multi_level_roi_align as reference

_OP = "multi_level_roi_align"
_COMPILED = is_built()
REDUCTIONS = ("select", "stack", "sum", "concat")


def multi_level_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    output_size: int | Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
    reduce: str = "select",
    levels: Tensor | None = None,
    canonical_size: float = 224,
    canonical_level: int = 4,
    on_invalid: str = "raise",
    out: Tensor | None = None,
) -> Tensor:
    r"""RoIAlign (arXiv:1703.06870, section 3) over the levels of a feature pyramid.

    A bin is the mean of bilinear samples on a regular grid. ``reduce`` says which maps are read:
    ``"select"`` one per RoI, the level ``floor(canonical_level + log2(sqrt(w h) /
    canonical_size))`` of FPN's eq. (1) (arXiv:1612.03144) or the one given in ``levels``; the
    others read every map for every RoI: ``"stack"`` keeps them apart, ``"sum"`` and ``"concat"``
    aggregate them while sampling (GRoIE, arXiv:2004.13665, section III) and store nothing between.

    A box without extent is a point; an inverted one (``x1 < x0`` or ``y1 < y0``) gives 0; samples
    more than a cell outside the map count as 0. Adaptive sampling looks only at samples that can
    lie on the map, so that a huge box costs no more than a whole map.

    Args:
        features: ``Tensor[N, C, H_l, W_l]`` per level, fine to coarse; float64/32/16 or bfloat16,
            any layout.
        rois: ``Tensor[K, 5]``, float32 (or float64 beside float64 features): batch index, then x0,
            y0, x1, y1 in px of the image.
        output_size: bins, one number or (h, w).
        spatial_scales: cells per px of every level, fine to coarse: 1 / stride.
        sampling_ratio: samples per bin and axis; 0: as many as a bin has cells, rounded up.
        aligned: half-pixel shift (Detectron2's ROIAlignV2). Without it a box is at least one cell
            long (ROIAlign).
        reduce: ``"select"``, ``"stack"``, ``"sum"`` or ``"concat"``.
        levels: integer ``Tensor[K]``, the index of each RoI's map (``"select"`` only).
        canonical_size: side in px of the box that belongs to ``canonical_level``.
        canonical_level: level number (log2 of the stride) of that box.
        on_invalid: a box that is not finite, or the index of an image or level that does not exist,
            is a ``ValueError`` (``"raise"``; on CUDA reported by the next call or
            ``segroi.ops.check_errors``) or gives zeros without gradient (``"zero"``).
        out: result to write into (no gradient may be needed), of any strides: channels of a wider
            tensor, for one. Its memory is nobody else's.

    Returns:
        ``Tensor[K, C, h, w]``, ``[K, L, C, h, w]`` for ``"stack"``, ``[K, L C, h, w]`` for
        ``"concat"``; of ``features``' dtype, with gradients to ``features`` and ``rois``;
        channels_last where the first map is, or is some channels of such a map.

    Raises:
        TypeError: wrong types or dtypes (boxes are never half: 1333 px would be 3 px off).
        ValueError: wrong shapes, devices or values.

    Example:
        >>> maps = [torch.ones(1, 8, 50, 76), torch.ones(1, 8, 25, 38)]
        >>> rois = torch.tensor([[0.0, 4.0, 4.0, 90.0, 60.0]])
        >>> multi_level_roi_align(maps, rois, 7, (1 / 4, 1 / 8), reduce="sum").mean()
        tensor(2.)
    """
    size = pair(_OP, "output_size", output_size)
    features = list(features) if isinstance(features, (list, tuple)) else features
    check_features(features, spatial_scales)
    check_rois(features[0], rois, levels, reduce)
    _check_options(size, sampling_ratio, reduce, on_invalid, canonical_size, canonical_level)
    if features[0].dtype == torch.float64:
        rois = rois.double()
    scales = [float(s) for s in spatial_scales]
    options = (size, scales, sampling_ratio, bool(aligned), reduce)
    rule = (float(canonical_size), canonical_level, on_invalid)
    if not _COMPILED:
        result = reference(features, rois, *options, levels, *rule)
        return result if out is None else out.copy_(result)
    arguments = (features, rois, levels, *options, finest_level(scales), *rule)
    if out is None:
        return torch.ops.segroi.multi_level_roi_align(*arguments)
    _check_out(out, features, rois, size, reduce)
    torch.ops.segroi.multi_level_roi_align_out(*arguments, out)
    return out


class MultiLevelRoIAlign(nn.Module):
    """``multi_level_roi_align`` with its options bound; arguments as there."""

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scales: Sequence[float],
        sampling_ratio: int = 0,
        aligned: bool = True,
        reduce: str = "select",
        canonical_size: float = 224,
        canonical_level: int = 4,
        on_invalid: str = "raise",
    ) -> None:
        super().__init__()
        self.output_size = pair(_OP, "output_size", output_size)
        _check_options(
            self.output_size, sampling_ratio, reduce, on_invalid, canonical_size, canonical_level
        )
        self.spatial_scales = tuple(spatial_scales)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.reduce = reduce
        self.canonical_size = canonical_size
        self.canonical_level = canonical_level
        self.on_invalid = on_invalid

    def forward(
        self, features: Sequence[Tensor], rois: Tensor, levels: Tensor | None = None
    ) -> Tensor:
        """Pool ``rois`` from ``features``."""
        return multi_level_roi_align(
            features,
            rois,
            self.output_size,
            self.spatial_scales,
            self.sampling_ratio,
            self.aligned,
            self.reduce,
            levels,
            self.canonical_size,
            self.canonical_level,
            self.on_invalid,
        )

    def extra_repr(self) -> str:
        """The options, for ``print(module)``."""
        return (
            f"output_size={self.output_size}, spatial_scales={self.spatial_scales}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}, reduce={self.reduce!r}"
        )


def check_features(features: Any, spatial_scales: Any) -> None:
    """Refuse maps that are no pyramid, and scales that do not belong to it."""
    if not isinstance(features, list) or not features:
        raise wrong(TypeError, _OP, "features", "a non-empty list of Tensors", features)
    for index, feature in enumerate(features):
        name = f"features[{index}]"
        dense(_OP, name, feature)
        if feature.dtype not in FLOATS:
            raise wrong(TypeError, _OP, name, "float64, float32, float16 or bfloat16", feature)
        if feature.dim() != 4 or feature.shape[2] < 1 or feature.shape[3] < 1:
            raise wrong(ValueError, _OP, name, "Tensor[N, C, H, W] with H, W > 0", feature)
        first = features[0]
        if (feature.dtype, feature.device, feature.shape[:2]) != (
            first.dtype,
            first.device,
            first.shape[:2],
        ):
            raise wrong(ValueError, _OP, name, "of N, C, dtype and device of features[0]", feature)
    if not isinstance(spatial_scales, (list, tuple)) or len(spatial_scales) != len(features):
        expected = f"a sequence of {len(features)} numbers, one per map"
        raise wrong(ValueError, _OP, "spatial_scales", expected, spatial_scales)
    for scale in spatial_scales:
        if not isinstance(scale, (int, float)) or not 1e-6 <= scale <= 1e6:
            raise wrong(ValueError, _OP, "spatial_scales", "in [1e-6, 1e6]", scale)


def check_rois(feature: Tensor, rois: Any, levels: Any, reduce: Any) -> None:
    """Refuse RoIs and levels of wrong type, shape or device; values are checked by the kernel."""
    dense(_OP, "rois", rois)
    if rois.dtype != torch.float32 and not rois.dtype == feature.dtype == torch.float64:
        expected = "float32 Tensor[K, 5] (float64 beside float64 features)"
        raise wrong(TypeError, _OP, "rois", expected, rois)
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise wrong(ValueError, _OP, "rois", "Tensor[K, 5]", rois)
    if rois.device != feature.device:
        raise wrong(ValueError, _OP, "rois", f"on {feature.device} like features", rois)
    if levels is None:
        return
    dense(_OP, "levels", levels)
    if reduce != "select":
        raise wrong(ValueError, _OP, "levels", f"None where reduce is {reduce!r}", levels)
    if levels.dtype not in INTEGERS:
        raise wrong(TypeError, _OP, "levels", "an integer Tensor[K]", levels)
    if levels.dim() != 1 or levels.shape[0] != rois.shape[0]:
        raise wrong(ValueError, _OP, "levels", f"Tensor[{rois.shape[0]}] like rois", levels)
    if levels.device != rois.device:
        raise wrong(ValueError, _OP, "levels", f"on {rois.device} like rois", levels)


def _check_options(
    size: list[int],
    sampling_ratio: Any,
    reduce: Any,
    on_invalid: Any,
    canonical_size: Any,
    canonical_level: Any,
) -> None:
    choice(_OP, "reduce", reduce, REDUCTIONS)
    choice(_OP, "on_invalid", on_invalid, ("raise", "zero"))
    if not is_int(sampling_ratio):
        raise wrong(TypeError, _OP, "sampling_ratio", "an int", sampling_ratio)
    if not 0 <= sampling_ratio <= MAX_SAMPLES:
        raise wrong(ValueError, _OP, "sampling_ratio", "in [0, 2^20]", sampling_ratio)
    if min(size) < 1 or max(size) > 2**15:
        raise wrong(ValueError, _OP, "output_size", "in [1, 2^15]", size)
    if not isinstance(canonical_size, (int, float)) or not 0 < canonical_size < 1e6:
        raise wrong(ValueError, _OP, "canonical_size", "in (0, 1e6) px", canonical_size)
    if not is_int(canonical_level) or not -64 <= canonical_level <= 64:
        raise wrong(ValueError, _OP, "canonical_level", "an int in [-64, 64]", canonical_level)


def _shape(features: list[Tensor], rois: Tensor, size: Sequence[int], reduce: str) -> list[int]:
    count, channels, levels = rois.shape[0], features[0].shape[1], len(features)
    if reduce == "stack":
        return [count, levels, channels, *size]
    return [count, channels * levels if reduce == "concat" else channels, *size]


def _check_out(
    out: Any, features: list[Tensor], rois: Tensor, size: list[int], reduce: str
) -> None:
    shape = _shape(features, rois, size, reduce)
    dtype = features[0].dtype
    if not isinstance(out, Tensor) or out.dtype != dtype or list(out.shape) != shape:
        raise wrong(ValueError, _OP, "out", f"{str(dtype)[6:]} Tensor{shape}", out)
    if out.device != rois.device:
        raise wrong(ValueError, _OP, "out", f"on {rois.device} like features", out)
    needs_grad = rois.requires_grad or any(f.requires_grad for f in features)
    if torch.is_grad_enabled() and needs_grad:
        raise wrong(ValueError, _OP, "out", "None where a gradient is needed", out)


def _fake(
    features: list[Tensor], rois: Tensor, levels: Tensor | None, size: list[int], *options: Any
) -> Tensor:
    shape = _shape(features, rois, size, options[3])
    if not is_channels_last(features[0]):
        return features[0].new_empty(shape)
    if len(shape) == 4:
        return features[0].new_empty(shape).contiguous(memory_format=torch.channels_last)
    count, slots, channels, height, width = shape
    return features[0].new_empty(count, slots, height, width, channels).permute(0, 1, 4, 2, 3)


def _fake_backward(
    grad: Tensor, features: list[Tensor], rois: Tensor, *_: Any
) -> tuple[list[Tensor], Tensor]:
    maps = [torch.empty_like(f, memory_format=layout_of(f)) for f in features]
    return maps, torch.empty_like(rois)


if _COMPILED:
    torch.library.register_fake("segroi::multi_level_roi_align")(_fake)
    torch.library.register_fake("segroi::multi_level_roi_align_out")(lambda *_: None)
    torch.library.register_fake("segroi::multi_level_roi_align_backward")(_fake_backward)
