"""The rows of bench_models.py: whole systems with random weights and a fixed number of objects.

A row is a function of one argument, the bytes of a JPEG file; it decodes, resizes, predicts and
pastes, and gives the number of instances it found. Time does not depend on the weights, but the
number of proposals and detections does: those are given (see `fix_objects`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
ZOO = "zoo:"
Predict = Callable[[bytes], int]


@dataclass(frozen=True)
class Setting:
    """What all rows of a table share.

    Args:
        image: (height, width) px of the JPEG file.
        resize: of Detectron2's rows: the short side, or exactly (height, width), in px.
        proposals: proposals of the RPN.
        objects: detections.
        device: "cpu" or "cuda".
    """

    image: tuple[int, int] = (480, 640)
    resize: int | tuple[int, int] = 480
    proposals: int = 300
    objects: int = 100
    device: str = "cpu"


@dataclass(frozen=True)
class Row:
    """One system: how to build it, and the place of its numbers in a project's results."""

    build: Callable[..., tuple[nn.Module, Predict]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    result: str = ""


def object_boxes(count: int) -> Tensor:
    """Boxes Tensor[count, 4] xyxy in units of the image: sides log-uniform in 0.06..0.7, mostly
    upright, as persons are.
    """
    g = torch.Generator().manual_seed(0)
    low, high = math.log(0.06), math.log(0.7)
    height = (low + (high - low) * torch.rand(count, generator=g)).exp()
    width = height * (0.35 + 0.6 * torch.rand(count, generator=g))
    sides = torch.stack([width, height], 1)
    corner = torch.rand(count, 2, generator=g) * (1 - sides)
    return torch.cat([corner, corner + sides], 1)


def jpeg(size: tuple[int, int]) -> bytes:
    """A picture with shapes of many sizes, coded as a photograph is."""
    rng = np.random.default_rng(0)
    picture = np.zeros((*size, 3), np.float32)
    for cells in (4, 16, 64, 256):
        noise = rng.random((cells, cells, 3), np.float32)
        picture += cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC) * 64
    return cv2.imencode(".jpg", picture.clip(0, 255).astype(np.uint8))[1].tobytes()


def decode(data: bytes) -> np.ndarray:
    """BGR uint8 [H, W, 3]."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def rgb_tensor(data: bytes, device: str) -> Tensor:
    """RGB Tensor[3, H, W] in 0..1."""
    pixels = torch.from_numpy(cv2.cvtColor(decode(data), cv2.COLOR_BGR2RGB)).to(device)
    return pixels.permute(2, 0, 1) / 255


def detectron2_row(
    setting: Setting, config: str, short_side: int = 0, fused: bool = False, **changes: Any
) -> tuple[nn.Module, Predict]:
    """A system of Detectron2 from a lazy config.

    Args:
        setting: of the table.
        config: file in this repository, or behind ``zoo:`` one of Detectron2's model zoo.
        short_side: px that images are resized to, if other than the setting's.
        fused: whether segroi's pooler takes the place of Detectron2's.
        changes: keys under ``model``, with ``__`` for dots, to set.
    """
    from detectron2 import model_zoo
    from detectron2.config import LazyConfig, instantiate
    from detectron2.data import transforms
    from detectron2.layers import FrozenBatchNorm2d
    from omegaconf import OmegaConf

    from segroi.d2 import replace_poolers

    zoo = config.startswith(ZOO)
    file = model_zoo.get_config_file(config.removeprefix(ZOO)) if zoo else str(ROOT / config)
    lazy = LazyConfig.load(file).model
    for key, value in changes.items():
        OmegaConf.update(lazy, key.replace("__", "."), value)
    torch.manual_seed(0)
    model = instantiate(lazy).eval().to(setting.device)
    for norm in (m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)):
        norm.weight.fill_(0.5)  # random weights grow over a hundred layers
    if fused:
        replace_poolers(model)
    fix_objects(model, setting)
    size = short_side or setting.resize
    exact = isinstance(size, tuple)
    resize = transforms.Resize(size) if exact else transforms.ResizeShortestEdge(size, 1333)

    def predict(data: bytes) -> int:
        pixels = decode(data)
        height, width = pixels.shape[:2]
        pixels = resize.get_transform(pixels).apply_image(pixels)
        image = torch.as_tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        found = model([{"image": image, "height": height, "width": width}])[0]["instances"]
        return len(found.pred_masks.cpu())

    return model, predict


def fix_objects(model: nn.Module, setting: Setting) -> None:
    """Let Detectron2's model find the same objects whatever its weights.

    The RPN and the predictors of the box heads run as ever; then proposals that crowd around the
    objects, and scores that make one detection of each crowd, take the place of what they gave.
    """
    from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
    from detectron2.structures import Boxes, Instances

    count, objects = setting.proposals, setting.objects
    g = torch.Generator().manual_seed(1)
    owner = torch.arange(count) % objects
    boxes = object_boxes(objects)[owner]
    side = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    shift = (torch.rand(count, 4, generator=g) - 0.5) * 0.1 * side
    shift[:objects] = 0
    boxes = (boxes + shift).clamp(0, 1).to(setting.device)

    def proposals(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        height, width = inputs[0].image_sizes[0]
        found = Instances((height, width))
        found.proposal_boxes = Boxes(boxes * boxes.new_tensor([width, height] * 2))
        found.objectness_logits = torch.linspace(9, 1, count, device=setting.device)
        return [found], output[1]

    def scores(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        classes = output[0].shape[1] - 1
        fixed = torch.zeros_like(output[0])
        rows = torch.arange(count)
        background = rows >= 3 * objects  # three of the crowd are sure, the rest is background
        fixed[rows, torch.where(background, classes, owner % classes)] = 8.0
        fixed[:objects] *= 1.1
        return fixed, torch.zeros_like(output[1])

    model.proposal_generator.register_forward_hook(proposals)
    for module in model.modules():
        if isinstance(module, FastRCNNOutputLayers):
            module.register_forward_hook(scores)


def ssd_isb_row(
    setting: Setting, mode: str = "", boxes: int = 0, **arguments: Any
) -> tuple[nn.Module, Predict]:
    """SSD-ISB whose detector finds fixed boxes, after all its work.

    Args:
        setting: of the table.
        mode: "folded" folds batch norms, "compiled" also compiles the detector, "bf16" runs it
            under autocast.
        boxes: detections, if other than the setting's objects.
        arguments: of ``segroi.modeling.ssd.ssd_isb.ssd_isb``.
    """
    from segroi.layers.norm import fold_batch_norms
    from segroi.modeling.ssd.ssd_isb import ssd_isb

    torch.manual_seed(0)
    model = ssd_isb(**arguments).eval().to(setting.device)
    count = boxes or setting.objects
    model.detector.detections_per_image = count
    if mode:
        fold_batch_norms(model)
        model.to(memory_format=torch.channels_last)
    if mode == "compiled":
        import torch._inductor.config as inductor

        inductor.freezing = True  # weights become constants: convolutions fuse with activations
        model.detector.forward = torch.compile(model.detector.forward)
    detect = model.detector.detect
    fixed = object_boxes(count).to(setting.device)

    def fixed_boxes(output: Any) -> list[dict[str, Tensor]]:
        (found,) = detect(output)
        return [{**found, "boxes": fixed[: len(found["boxes"])]}]

    model.detector.detect = fixed_boxes

    def predict(data: bytes) -> int:
        with torch.autocast(setting.device, torch.bfloat16, enabled=mode == "bf16"):
            return len(model([rgb_tensor(data, setting.device)])[0]["masks"].cpu())

    return model, predict


def semantic_row(setting: Setting, **arguments: Any) -> tuple[nn.Module, Predict]:
    """A semantic segmenter, from the picture to the class of each pixel."""
    from torchvision.transforms.functional import normalize

    from segroi.modeling.semantic.low_cost import build_low_cost_segmenter

    torch.manual_seed(0)
    model = build_low_cost_segmenter(**arguments).eval().to(setting.device)

    def predict(data: bytes) -> int:
        image = rgb_tensor(data, setting.device)
        image = normalize(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return len(model(image[None]).argmax(1).to(torch.uint8).cpu())

    return model, predict


def count_parameters(model: nn.Module) -> int:
    """Parameters and moving statistics, as the thesis counts."""
    return sum(t.numel() for t in _tensors(model))


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            yield buffer
