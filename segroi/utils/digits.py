"""Cluttered scenes of real handwritten digits, as a COCO-format dataset with a known truth.

The digits are scikit-learn's bundled 8x8 scans (UCI ML hand-written digits, 1,797 of them),
enlarged smoothly, rotated, coloured and laid over one another on textured ground. A mask holds what
is *visible* of its digit. The same seed always gives the same pictures, and training and validation
scenes draw on different scans.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle_codec

DIGITS_ANNOTATIONS = "{split}.json"
_MAX_HIDDEN = 0.35  # share of a digit that the digits above it may hide
_PAD = 2  # cells of paper around an 8x8 scan, so that strokes at its rim keep their shape


@dataclass(frozen=True)
class SceneSpec:
    """How a scene is drawn; lengths in px, angles in degrees."""

    size: tuple[int, int] = (160, 160)
    digits: tuple[int, int] = (3, 6)
    side: tuple[float, float] = (40.0, 84.0)
    angle: float = 20.0


def make_digits(
    output: str | Path,
    train: int = 400,
    val: int = 60,
    seed: int = 0,
    spec: SceneSpec | None = None,
) -> dict[str, Path]:
    """Write a digits dataset in COCO format.

    Args:
        output: folder to write; holds ``train.json``, ``val.json`` and the folder ``images``.
        train: number of training scenes.
        val: number of validation scenes, drawn from other scans than the training scenes.
        seed: the same seed gives the same files.
        spec: sizes of scenes and digits.

    Returns:
        Path of the annotation file of each split, and of the images (key ``"images"``).
    """
    spec = spec or SceneSpec()
    output = Path(output)
    (output / "images").mkdir(parents=True, exist_ok=True)
    paths = {"images": output / "images"}
    for number, (split, count) in enumerate({"train": train, "val": val}.items()):
        scans, labels = _scans(parity=number)
        images, annotations = [], []
        for index in range(count):
            rng = np.random.default_rng((seed, number, index))
            picture, masks, chosen = draw_scene(scans, labels, spec, rng)
            name = f"{split}_{index:05d}.png"
            cv2.imwrite(str(output / "images" / name), picture[..., ::-1])
            images.append(_image_entry(index + 1, name, spec.size))
            for mask, label in zip(masks, chosen):
                annotations.append(_annotation(len(annotations) + 1, index + 1, mask, label))
        paths[split] = output / DIGITS_ANNOTATIONS.format(split=split)
        paths[split].write_text(json.dumps(_coco(images, annotations, seed)))
    return paths


def draw_scene(
    scans: np.ndarray, labels: np.ndarray, spec: SceneSpec, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray], list[int]]:
    """Draw one scene.

    Args:
        scans: ``[M, 8, 8]`` grey values 0 (paper) to 1 (ink).
        labels: ``[M]`` digit of each scan.
        spec: sizes of scene and digits.
        rng: source of every random choice.

    Returns:
        The picture ``uint8 [H, W, 3]`` (RGB), the visible mask ``bool [H, W]`` of each digit, and
        the digits' labels.
    """
    canvas, ground = _ground(spec.size, rng)
    masks: list[np.ndarray] = []
    chosen: list[int] = []
    whole: list[int] = []
    for _ in range(int(rng.integers(spec.digits[0], spec.digits[1] + 1))):
        index = int(rng.integers(len(scans)))
        alpha = _place(scans[index], masks, whole, spec, rng)
        if alpha is None:
            continue
        canvas = _paint(canvas, alpha, ground, rng)
        solid = alpha > 0.5
        masks = [mask & ~solid for mask in masks] + [solid]
        whole.append(int(solid.sum()))
        chosen.append(int(labels[index]))
    canvas += rng.normal(0.0, 3.0, canvas.shape)  # sensor noise
    return np.clip(canvas, 0, 255).astype(np.uint8), masks, chosen


def _scans(parity: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images[parity::2].astype(np.float32) / 16.0, bunch.target[parity::2]


def _place(
    scan: np.ndarray,
    masks: list[np.ndarray],
    whole: list[int],
    spec: SceneSpec,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """Coverage ``[H, W]`` of the scan at a place where it hides no other digit too much."""
    height, width = spec.size
    for _ in range(20):
        side = float(np.exp(rng.uniform(*np.log(spec.side))))
        margin = min(0.45 * side, width / 2, height / 2)  # a small scene cuts large digits
        centre = rng.uniform((margin, margin), (width - margin, height - margin))
        alpha = _warp(scan, centre, side, float(rng.uniform(-spec.angle, spec.angle)), spec.size)
        solid = alpha > 0.5
        hidden = [1 - (mask & ~solid).sum() / full for mask, full in zip(masks, whole)]
        if max(hidden, default=0.0) <= _MAX_HIDDEN and solid.any():
            return alpha
    return None


def _warp(
    scan: np.ndarray, centre: np.ndarray, side: float, angle: float, size: tuple[int, int]
) -> np.ndarray:
    fine = 16  # enlarge first: a smooth outline comes from the cubic, not from the final warp
    padded = np.pad(scan, _PAD)
    cells = padded.shape[0]
    smooth = cv2.resize(padded, None, fx=fine, fy=fine, interpolation=cv2.INTER_CUBIC)
    middle = (cells * fine - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), angle, side / (scan.shape[0] * fine))
    matrix[:, 2] += centre - middle
    ink = cv2.warpAffine(smooth, matrix, (size[1], size[0]), flags=cv2.INTER_AREA)
    edge = 8.0 / side  # ink rises over about one px of the outline
    return np.clip((ink - 0.42) / edge + 0.5, 0.0, 1.0)


def _ground(size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Textured ground ``float32 [H, W, 3]`` and its mean colour."""
    height, width = size
    texture = np.zeros(size, np.float32)
    for octave in range(2, 6):
        cells = rng.normal(0.0, 1.0, (2**octave, 2**octave)).astype(np.float32)
        texture += cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC) / octave
    texture = (texture - texture.min()) / max(float(np.ptp(texture)), 1e-6)
    first = _colour(rng, (0.15, 0.95), (0.05, 0.45))
    second = np.clip(first + rng.uniform(-70, 70, 3), 0, 255)
    canvas = first + (second - first) * texture[..., None]
    for _ in range(int(rng.integers(2, 7))):  # scratches: edges that are no digit
        start, end = rng.integers(0, (width, height), (2, 2))
        shade = tuple(float(v) for v in np.clip(first + rng.uniform(-60, 60, 3), 0, 255))
        canvas = cv2.line(
            np.ascontiguousarray(canvas, np.float32),
            [int(v) for v in start],
            [int(v) for v in end],
            shade,
            int(rng.integers(1, 3)),
            cv2.LINE_AA,
        )
    return canvas.astype(np.float32), canvas.reshape(-1, 3).mean(0)


def _paint(
    canvas: np.ndarray, alpha: np.ndarray, ground: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    for _ in range(50):
        ink = _colour(rng, (0.1, 1.0), (0.3, 0.95))
        if np.abs(ink - ground).max() > 80:
            break
    shadow = cv2.GaussianBlur(np.roll(alpha, (2, 2), (0, 1)), (0, 0), 2.0)
    canvas = canvas * (1 - 0.45 * shadow[..., None])
    slope = np.linspace(-1, 1, alpha.shape[0], dtype=np.float32)[:, None, None]
    body = np.clip(ink * (1 + 0.2 * rng.uniform(-1, 1) * slope), 0, 255)
    return canvas * (1 - alpha[..., None]) + body * alpha[..., None]


def _colour(
    rng: np.random.Generator, value: tuple[float, float], saturation: tuple[float, float]
) -> np.ndarray:
    hsv = np.array([rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(*value)])
    return cv2.cvtColor(hsv.astype(np.float32)[None, None], cv2.COLOR_HSV2RGB)[0, 0] * 255


def _image_entry(number: int, name: str, size: tuple[int, int]) -> dict[str, object]:
    return {"id": number, "file_name": name, "height": size[0], "width": size[1]}


def _annotation(number: int, image: int, mask: np.ndarray, label: int) -> dict[str, object]:
    code = rle_codec.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "id": number,
        "image_id": image,
        "category_id": label + 1,
        "bbox": [float(v) for v in rle_codec.toBbox(code)],
        "area": float(rle_codec.area(code)),
        "iscrowd": 0,
        "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
    }


def _coco(images: list[dict], annotations: list[dict], seed: int) -> dict[str, object]:
    return {
        "info": {"description": "scenes of handwritten digits", "seed": seed},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": d + 1, "name": str(d), "supercategory": "digit"} for d in range(10)],
    }
