"""crop_and_resize: bilinear crops of given boxes, TensorFlow's or half-pixel aligned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segroi._extension import is_built
from segroi.ops._checks import FLOATS, INTEGERS, choice, dense, is_int, pair, wrong
from segroi.ops._layout import layout_of
from segroi.ops.reference.crop_and_resize import crop_and_resize as reference

_OP = "crop_and_resize"
_COMPILED = is_built()


def crop_and_resize(
    features: Tensor,
    boxes: Tensor,
    box_index: Tensor,
    crop_size: int | Sequence[int],
    method: str = "bilinear",
    extrapolation_value: float = 0.0,
    coordinates: str = "tf",
    pool: int = 1,
    on_invalid: str = "raise",
    out: Tensor | None = None,
) -> Tensor:
    r"""Crop boxes out of maps, sampled at ``crop_size`` and averaged over ``pool`` x ``pool``.

    Per axis of ``S`` cells, sample ``i`` of ``c`` lies at ``b1 (S-1) + i (b2-b1)(S-1)/(c-1)`` in
    ``"tf"`` coordinates (``(b1+b2)(S-1)/2`` when ``c`` is 1), and outside ``[0, S-1]`` it is
    ``extrapolation_value``: TensorFlow's ``tf.image.crop_and_resize``. In ``"aligned"``
    coordinates it lies at ``b1 - 1/2 + (i + 1/2)(b2-b1)/c``, is clamped to the map within one cell
    of it and extrapolated beyond: RoIAlign's rule (Mask R-CNN, arXiv:1703.06870), so that
    ``crop_size = p c, pool = p`` equals RoIAlign of size ``c`` with sampling ratio ``p``. A box
    with ``b2 < b1`` gives the mirrored crop; a box of no extent repeats one sample.

    Args:
        features: ``Tensor[N, C, H, W]``, float64/32/16 or bfloat16, any layout.
        boxes: ``Tensor[K, 4]``, float32 (or float64 beside float64 features): ``(y1, x1, y2, x2)``
            normalised so that 1 is the centre of the last cell (``"tf"``), or ``(x0, y0, x1, y1)``
            in cells of the map (``"aligned"``).
        box_index: integer ``Tensor[K]``, the image of each box.
        crop_size: rows and columns sampled, before pooling; multiples of ``pool``.
        method: ``"bilinear"`` or ``"nearest"`` (which has no gradient to the boxes).
        extrapolation_value: what a sample outside the map is worth.
        coordinates: ``"tf"`` or ``"aligned"``.
        pool: average ``pool`` x ``pool`` samples inside the kernel.
        on_invalid: a NaN or infinite box, or an index of no image, is a ``ValueError``
            (``"raise"``) or a crop of zeros without gradient (``"zero"``).
        out: result to write into (no gradient may be needed), of any strides: channels of a wider
            tensor, for one. Its memory is nobody else's.

    Returns:
        ``Tensor[K, C, crop_size[0] / pool, crop_size[1] / pool]`` of ``features``' dtype, with
        gradients to ``features`` and ``boxes``; channels_last where ``features`` is, or is some
        channels of such a map.

    Raises:
        TypeError: wrong types or dtypes.
        ValueError: wrong shapes, devices or values.

    Example:
        >>> maps = torch.arange(16.0).view(1, 1, 4, 4)
        >>> boxes, index = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([0])
        >>> crop_and_resize(maps, boxes, index, 2)[0, 0]
        tensor([[ 0.,  3.],
                [12., 15.]])
    """
    size = pair(_OP, "crop_size", crop_size)
    _check_tensors(features, boxes, box_index)
    _check_options(size, method, coordinates, pool, on_invalid, extrapolation_value)
    if features.dtype == torch.float64:
        boxes = boxes.double()
    options = (size, method, float(extrapolation_value), coordinates, pool, on_invalid)
    if out is not None:
        _check_out(out, features, boxes, size, pool)
        if not _COMPILED:
            return out.copy_(reference(features, boxes, box_index, *options))
        torch.ops.segroi.crop_and_resize_out(features, boxes, box_index, *options, out)
        return out
    if not _COMPILED:
        return reference(features, boxes, box_index, *options)
    return torch.ops.segroi.crop_and_resize(features, boxes, box_index, *options)


class CropAndResize(nn.Module):
    """``crop_and_resize`` with its options bound; arguments as there."""

    def __init__(
        self,
        crop_size: int | Sequence[int],
        method: str = "bilinear",
        extrapolation_value: float = 0.0,
        coordinates: str = "tf",
        pool: int = 1,
        on_invalid: str = "raise",
    ) -> None:
        super().__init__()
        self.crop_size = pair(_OP, "crop_size", crop_size)
        _check_options(self.crop_size, method, coordinates, pool, on_invalid, extrapolation_value)
        self.method = method
        self.extrapolation_value = extrapolation_value
        self.coordinates = coordinates
        self.pool = pool
        self.on_invalid = on_invalid

    def forward(self, features: Tensor, boxes: Tensor, box_index: Tensor) -> Tensor:
        """Crops ``Tensor[K, C, h, w]`` of ``features``."""
        return crop_and_resize(
            features,
            boxes,
            box_index,
            self.crop_size,
            self.method,
            self.extrapolation_value,
            self.coordinates,
            self.pool,
            self.on_invalid,
        )

    def extra_repr(self) -> str:
        """The options, for ``print(module)``."""
        return (
            f"crop_size={self.crop_size}, method={self.method!r}, "
            f"coordinates={self.coordinates!r}, pool={self.pool}"
        )


def _check_tensors(features: Any, boxes: Any, box_index: Any) -> None:
    for name, value in (("features", features), ("boxes", boxes), ("box_index", box_index)):
        dense(_OP, name, value)
    if features.dtype not in FLOATS:
        raise wrong(TypeError, _OP, "features", "float64, float32, float16 or bfloat16", features)
    if features.dim() != 4 or features.shape[2] < 1 or features.shape[3] < 1:
        raise wrong(ValueError, _OP, "features", "Tensor[N, C, H, W] with H, W > 0", features)
    if boxes.dtype != torch.float32 and not (boxes.dtype == features.dtype == torch.float64):
        raise wrong(
            TypeError, _OP, "boxes", "float32 Tensor[K, 4] (float64 beside float64 features)", boxes
        )
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise wrong(ValueError, _OP, "boxes", "Tensor[K, 4]", boxes)
    if box_index.dtype not in INTEGERS:
        raise wrong(TypeError, _OP, "box_index", "an integer Tensor[K]", box_index)
    if box_index.dim() != 1 or box_index.shape[0] != boxes.shape[0]:
        raise wrong(ValueError, _OP, "box_index", f"Tensor[{boxes.shape[0]}] like boxes", box_index)
    for name, value in (("boxes", boxes), ("box_index", box_index)):
        if value.device != features.device:
            raise wrong(ValueError, _OP, name, f"on {features.device} like features", value)


def _check_options(
    size: list[int], method: Any, coordinates: Any, pool: Any, on_invalid: Any, fill: Any
) -> None:
    for name, value, allowed in (
        ("method", method, ("bilinear", "nearest")),
        ("coordinates", coordinates, ("tf", "aligned")),
        ("on_invalid", on_invalid, ("raise", "zero")),
    ):
        choice(_OP, name, value, allowed)
    if not is_int(pool):
        raise wrong(TypeError, _OP, "pool", "an int", pool)
    if pool < 1:
        raise wrong(ValueError, _OP, "pool", "positive", pool)
    if min(size) < 1 or max(size) >= 2**20 or size[0] % pool or size[1] % pool:
        raise wrong(ValueError, _OP, "crop_size", f"multiples of pool={pool} in [1, 2^20)", size)
    if not isinstance(fill, (int, float)) or isinstance(fill, bool):
        raise wrong(TypeError, _OP, "extrapolation_value", "a float", fill)


def _check_out(out: Any, features: Tensor, boxes: Tensor, size: list[int], pool: int) -> None:
    shape = [boxes.shape[0], features.shape[1], size[0] // pool, size[1] // pool]
    if not isinstance(out, Tensor) or out.dtype != features.dtype or list(out.shape) != shape:
        raise wrong(ValueError, _OP, "out", f"{str(features.dtype)[6:]} Tensor{shape}", out)
    if out.device != features.device:
        raise wrong(ValueError, _OP, "out", f"on {features.device} like features", out)
    if torch.is_grad_enabled() and (features.requires_grad or boxes.requires_grad):
        raise ValueError(f"{_OP}: out must be None where a gradient is needed, got a Tensor")


def _fake(
    features: Tensor, boxes: Tensor, box_index: Tensor, size: list[int], *options: Any
) -> Tensor:
    pool = options[3]
    shape = (boxes.shape[0], features.shape[1], size[0] // pool, size[1] // pool)
    return features.new_empty(shape).contiguous(memory_format=layout_of(features))


def _fake_backward(grad: Tensor, features: Tensor, boxes: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(features, memory_format=layout_of(features)), torch.empty_like(boxes)


if _COMPILED:
    torch.library.register_fake("segroi::crop_and_resize")(_fake)
    torch.library.register_fake("segroi::crop_and_resize_backward")(_fake_backward)
    torch.library.register_fake("segroi::crop_and_resize_out")(lambda *_: None)
