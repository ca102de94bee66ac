"""What is kept of a training on Detectron2 whose numbers ceased to be finite."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from segroi.utils.non_finite import first_non_finite, names_not_finite
from segroi.utils.safe_files import atomic_write, read_weights
from segroi.utils.suggest import UsageError

POSTMORTEM = "postmortem.json"
REPLAY = "postmortem.pth"
# A field of Instances is stored as the name of its class and its tensor.
_KINDS = {"Boxes": Boxes, "BitMasks": BitMasks}
_PLAIN = ("height", "width", "file_name", "image_id")


class TrainingDiverged(UsageError):
    """Training stopped at a number that is not finite; the text says what is kept."""


@contextlib.contextmanager
def postmortem(model: nn.Module, folder: str | Path) -> Iterator[None]:
    """Write a post-mortem if the training within stops at a number that is not finite.

    Detectron2 raises before the optimizer's step, so the weights are those that made the number.

    Args:
        model: what is trained, wrapped for several processes or not.
        folder: the run's folder.

    Raises:
        TrainingDiverged: instead of the ``FloatingPointError``.
    """
    last: dict[str, Any] = {}

    def remember(module: nn.Module, inputs: tuple) -> None:
        if module.training:
            last.update(batch=inputs[0], rng=torch.get_rng_state())

    model = getattr(model, "module", model)
    handle = model.register_forward_pre_hook(remember)
    try:
        yield
    except FloatingPointError as error:
        handle.remove()
        if not comm.is_main_process() or not last:
            raise
        raise TrainingDiverged(_write(model, Path(folder), error, **last)) from error
    finally:
        handle.remove()


def replay(path: str | Path) -> str:
    """Run the last batch of a post-mortem once more and tell where the number comes from."""
    from segroi.d2.predict import load_run

    content = read_weights(path)
    if not isinstance(content, dict) or "batch" not in content:
        raise UsageError(f"{path} is no post-mortem")
    model = load_run(path)[0].model.train()
    batch = [_unpacked(item) for item in content["batch"]]
    found, losses = _search(model, batch, content["rng"])
    return _verdict(found, losses)


def _write(
    model: nn.Module, folder: Path, error: Exception, batch: Sequence[dict], rng: Tensor
) -> str:
    found, losses = _search(model, batch, rng)
    kept = sorted(folder.glob("model_*.pth"), key=lambda f: f.stat().st_mtime)
    launcher = "lazyconfig_train_net.py" if _is_lazy(folder) else "train_net.py"
    command = f"python scripts/{launcher} --replay {folder / REPLAY}"
    content = {
        "why": str(error),
        "images": [_summary(item) for item in batch],
        "first_not_finite": found,
        "losses": losses,
        "parameters_not_finite": names_not_finite(dict(model.named_parameters())),
        "gradients_not_finite": names_not_finite({n: p.grad for n, p in model.named_parameters()}),
        "last_checkpoint": str(kept[-1]) if kept else None,
        "reproduce": command,
    }
    (folder / POSTMORTEM).write_text(json.dumps(content, indent=2))
    packed = [_packed(item) for item in batch]
    with atomic_write(folder / REPLAY) as file:
        torch.save({"model": model.state_dict(), "batch": packed, "rng": rng}, file)
    saved = f"{kept[-1]} is the last checkpoint. " if kept else ""
    return (
        f"{error}\n{_verdict(found, losses)} Images: "
        f"{', '.join(str(item.get('file_name')) for item in batch)}. Try a quarter of the learning "
        f"rate or a longer warm-up. {saved}{folder / POSTMORTEM} holds the details; once more: "
        f"{command}"
    )


def _search(
    model: nn.Module, batch: Sequence[dict], rng: Tensor
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The first module that is not finite, and the losses as text."""
    losses: dict[str, str] = {}

    def run() -> None:
        with torch.random.fork_rng(), EventStorage(), torch.no_grad():
            torch.set_rng_state(rng)
            losses.update({k: f"{float(v):.4g}" for k, v in model(batch).items()})

    return first_non_finite(model, run), losses


def _verdict(found: dict[str, Any] | None, losses: dict[str, str]) -> str:
    if found is None:
        return f"Every module's output is finite; losses: {losses}."
    whose = "its inputs are finite" if found["inputs_finite"] else "its inputs are not either"
    return f"The first output that is not finite is {found['module']} ({found['kind']}): {whose}."


def _is_lazy(folder: Path) -> bool:
    from segroi.d2.predict import CONFIG, is_lazy

    return (folder / CONFIG).exists() and is_lazy(folder)


def _summary(item: dict[str, Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {"file": item.get("file_name"), "id": item.get("image_id")}
    if "instances" in item:
        boxes = item["instances"].gt_boxes.tensor
        sides = boxes[:, 2:] - boxes[:, :2]
        summary["boxes"] = [[round(v, 2) for v in box] for box in boxes.tolist()]
        summary["smallest_side_px"] = float(sides.min()) if len(boxes) else None
    return summary


def _packed(item: dict[str, Any]) -> dict[str, Any]:
    """An input of Detectron2's models as plain data and tensors."""
    packed = {k: item[k] for k in _PLAIN if k in item}
    packed |= {k: v for k, v in item.items() if isinstance(v, Tensor)}
    if "instances" in item:
        fields = item["instances"].get_fields().items()
        size = list(item["instances"].image_size)
        packed["instances"] = {"size": size, "fields": {n: _field(v) for n, v in fields}}
    return packed


def _field(value: Any) -> tuple[str, Any]:
    if isinstance(value, PolygonMasks):
        return "PolygonMasks", [[torch.as_tensor(p) for p in ps] for ps in value.polygons]
    return type(value).__name__, value if isinstance(value, Tensor) else value.tensor


def _unpacked(packed: dict[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`_packed`."""
    if "instances" not in packed:
        return packed
    stored = packed["instances"]
    instances = Instances(tuple(stored["size"]))
    for name, (kind, value) in stored["fields"].items():
        if kind == "PolygonMasks":
            value = PolygonMasks([[p.numpy() for p in ps] for ps in value])
        instances.set(name, _KINDS[kind](value) if kind in _KINDS else value)
    return {**packed, "instances": instances}
