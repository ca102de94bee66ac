"""Calls into separable_emulation.cpp: arguments from tensors, guard bands, thread orders."""

import ctypes
import math
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
FORWARD, BY_MAPS, BY_BOXES = range(3)
VECTOR, CHANNELS_LAST, STRIDED = range(3)
I64, I32, PTR = ctypes.c_int64, ctypes.c_int, ctypes.c_void_p


def struct(**fields):
    return type("Struct", (ctypes.Structure,), {"_fields_": list(fields.items())})


Strides = struct(n=I64, c=I64, y=I64, x=I64)
MapView = struct(data=PTR, stride=Strides, length=I32 * 2, scale=ctypes.c_double)
LevelMap = struct(first_area=ctypes.c_double, levels=I32)
Args = struct(
    maps=MapView * 16, levels=I32, images=I64, channels=I64, rois=I64,
    boxes=PTR, box_stride=I64, box_column_stride=I64, box_column=I32 * 4, image_column=I32,
    image_index=PTR, level_index=PTR, image_index_bytes=I32, level_index_bytes=I32,
    image_index_stride=I64, level_index_stride=I64, level_map=LevelMap,
    coordinates=I32, bins=I32 * 2, samples=I32 * 2, pool=I32,
    aligned=ctypes.c_bool, nearest=ctypes.c_bool, extrapolation=ctypes.c_double,
    crops=PTR, crop_stride_k=I64, crop_stride_slot=I64, crop_stride=Strides, slots=I32,
    all_levels=ctypes.c_bool, grad_boxes=PTR, box_columns=I32, error_flag=PTR, op=I64,
    tile_bins=I32 * 2, tiles=I32 * 2, chunk_channels=I64, channel_chunks=I64,
    chunk_blocks=ctypes.c_uint, map_tiles=ctypes.c_uint * 17, shared_bytes=I32, sums_bytes=I32,
    vector_maps=ctypes.c_bool,
)  # fmt: skip


def build(directory):
    """Compile the kernels with g++ and load them."""
    library = Path(directory) / "emulation.so"
    command = ["g++", "-std=c++20", "-O1", "-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas"]
    command += ["-shared", "-fPIC", f"-I{ROOT / 'csrc'}", "-o", str(library)]
    subprocess.run([*command, str(ROOT / "tests/csrc/separable_emulation.cpp")], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.first_area.restype = ctypes.c_double
    loaded.first_area.argtypes = [I32, ctypes.c_double, I32]
    assert loaded.args_size() == ctypes.sizeof(Args)
    return loaded


def guarded(tensor, fill):
    """The same values inside a larger buffer full of `fill`; returns the view and the buffer."""
    order = sorted(range(tensor.dim()), key=lambda d: (-tensor.stride(d), -tensor.shape[d]))
    buffer = tensor.new_full((tensor.numel() + 128,), fill)
    inner = buffer[64 : 64 + tensor.numel()].view([tensor.shape[d] for d in order])
    inner = inner.permute([order.index(d) for d in range(tensor.dim())])
    return inner.copy_(tensor), buffer


def strides(tensor):
    return Strides(*tensor.stride())


def set_maps(args, maps, scales):
    args.levels, (args.images, args.channels) = len(maps), maps[0].shape[:2]
    for view, m, scale in zip(args.maps, maps, scales):
        view.data, view.stride, view.scale = m.data_ptr(), strides(m), scale
        view.length[:] = m.shape[2:]


def set_crops(args, crops):
    """Crops [K, slots, C, h, w]."""
    args.crops, args.slots = crops.data_ptr(), crops.shape[1]
    args.crop_stride_k, args.crop_stride_slot = crops.stride()[:2]
    args.crop_stride = Strides(0, *crops.stride()[2:])


def align_args(kernels, rois, size, scales, sampling_ratio, aligned, reduce, levels=None):
    args = Args(rois=len(rois), boxes=rois.data_ptr(), box_stride=rois.stride(0))
    args.box_column_stride, args.image_column, args.box_columns = rois.stride(1), 0, 5
    args.box_column[:] = 2, 1, 4, 3
    args.bins[:], args.samples[:], args.pool = size, (sampling_ratio,) * 2, 1
    args.aligned, args.all_levels, args.op = aligned, reduce != "select", 1
    args.level_map.levels = len(scales)
    args.level_map.first_area = kernels.first_area(round(-math.log2(scales[0])), 224, 4)
    if levels is not None:
        args.level_index, args.level_index_bytes = levels.data_ptr(), levels.element_size()
        args.level_index_stride = levels.stride(0)
    return args


def crop_args(boxes, index, size, coordinates, pool, method, extrapolation):
    args = Args(rois=len(boxes), boxes=boxes.data_ptr(), box_stride=boxes.stride(0))
    args.box_column_stride, args.image_column, args.box_columns = boxes.stride(1), -1, 4
    args.box_column[:] = (0, 1, 2, 3) if coordinates == "tf" else (1, 0, 3, 2)
    args.image_index, args.image_index_stride = index.data_ptr(), index.stride(0)
    args.image_index_bytes = index.element_size()
    args.coordinates = 2 if coordinates == "tf" else 1
    args.bins[:], args.samples[:], args.pool = [s // pool for s in size], size, pool
    args.nearest, args.extrapolation, args.op = method == "nearest", extrapolation, 2
    return args


def in_every_order(kernels, kernel, args, dtype, results):
    """Run with a block's threads in three orders: the same bits; returns them and the layout."""
    seen = []
    for order in range(3):
        layout = kernels.run_separable(kernel, DTYPES[dtype], ctypes.byref(args), order)
        seen.append([r.clone() for r in results])
    for later in seen[1:]:
        assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(seen[0], later))
    return seen[0], layout


def untouched(buffer):
    return bool((buffer[:64] == 77).all() and (buffer[-64:] == 77).all())


def forward(kernels, args, maps, scales, crops):
    """Forward between guard bands into a tensor like `crops`; also returns the kernel's layout."""
    maps = [guarded(m, math.nan)[0] for m in maps]
    set_maps(args, maps, scales)
    out, buffer = guarded(torch.full_like(crops, 7), 77)
    set_crops(args, out)
    (result,), layout = in_every_order(kernels, FORWARD, args, maps[0].dtype, [out])
    assert untouched(buffer)
    return result, layout


def backward_maps(kernels, args, maps, scales, grad):
    grads, buffers = zip(*[guarded(torch.full_like(m, 7), 77) for m in maps])
    set_maps(args, grads, scales)
    grad = guarded(grad, math.nan)[0]
    set_crops(args, grad)
    results, layout = in_every_order(kernels, BY_MAPS, args, maps[0].dtype, grads)
    assert all(untouched(buffer) for buffer in buffers)
    return results, layout


def backward_boxes(kernels, args, maps, scales, grad, boxes):
    maps = [guarded(m, math.nan)[0] for m in maps]
    set_maps(args, maps, scales)
    set_crops(args, grad)
    out = torch.full_like(boxes, 7)
    args.grad_boxes = out.data_ptr()
    return in_every_order(kernels, BY_BOXES, args, maps[0].dtype, [out])[0][0]


def close(got, wanted, dtype, factor=1):
    torch.testing.assert_close(
        got.double(), wanted.double(), rtol=TOLERANCE[dtype], atol=factor * TOLERANCE[dtype]
    )
