#!/usr/bin/env python
"""Person crops as the second half of an instance segmentation network: SSD-ISB gives the boxes.

    python projects/LowCostSemSeg/person_ap.py --val-json val.json --images photographs \
        --detector output/small --networks output/person_table/weights/*_5_5.pth \
        --output output/person_ap

Each detected box is cropped, a network of person_table.py segments the crop, and the mask is pasted
back. Boxes and scores are SSD-ISB's, so mask AP differs by the masks alone. The bounds are the box
itself as a mask, and the annotated person that fits the box best. `--detector` is the output of
projects/SSD-ISB/small_data.py; numbers are means over its seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from person_table import DECODERS, MEAN, NAMES, STD
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO
from torch import Tensor
from torchvision.transforms.functional import normalize
from torchvision.utils import draw_segmentation_masks, save_image

from segroi.layers.masks import paste_masks
from segroi.modeling.semantic.low_cost import LowCostSegmenter, build_low_cost_segmenter
from segroi.tv.evaluate import encode_mask
from segroi.utils.coco import coco_scores, load_coco
from segroi.utils.images import load_image
from segroi.utils.person_crops import Person, crop_person, crop_region
from segroi.utils.project_results import record
from segroi.utils.suggest import UsageError

FAMILIES = {"single_branch": "SSD-ISB, Single-Branch", "multi_shape": "SSD-ISB, Multi-Shape"}
BOXES_OF = "single_branch"  # Multi-Shape's are the same, without those whose mask is empty
_FILE = "detections.json"
METRICS = ("AP", "AP50", "AP75")

Masks = Callable[[np.ndarray, np.ndarray, int], Tensor]  # pixels, boxes xyxy, id of the image


def main() -> None:
    """Score SSD-ISB's own masks, then those of the networks and the bounds."""
    args = _arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    truth, values = load_coco(args.val_json), {}
    detections = _detections(args.detector)
    for family, name in FAMILIES.items():
        values[name] = _mean([_score(truth, found) for found in detections[family]])
        print(f"{name:40s} {values[name]}", flush=True)
    methods = {"the boxes themselves": _whole_boxes}
    methods |= {_row(file): _network(file, args) for file in args.networks}
    methods |= {"the annotated masks": lambda *image: _annotated(truth, *image)}
    for name, masks in methods.items():
        redrawn = [_redrawn(truth, found, masks, args) for found in detections[BOXES_OF]]
        values[name] = _mean([_score(truth, results) for results in redrawn])
        print(f"{name:40s} {values[name]}", flush=True)
        _draw(truth, redrawn[0], args, args.output / f"{name}.png")
        (args.output / "table.json").write_text(json.dumps(values, indent=1))
    if args.record:
        record(Path(__file__).with_name("results.json"), "boxes", values)


def _detections(detector: Path) -> dict[str, list[list[dict]]]:
    """Detections by family, of the seeds that both families have.

    Raises:
        UsageError: there is no such seed.
    """
    seeds = [
        {file.parent.name.rpartition("-")[2] for file in detector.glob(f"{family}-*/{_FILE}")}
        for family in FAMILIES
    ]
    both = sorted(set.intersection(*seeds))
    if not both:
        raise UsageError(f"{detector} holds {_FILE} of no seed of both {' and '.join(FAMILIES)}")
    print(f"seeds {' '.join(both)}")
    return {
        family: [json.loads((detector / f"{family}-{s}" / _FILE).read_text()) for s in both]
        for family in FAMILIES
    }


def _settings(file: Path) -> tuple[str, float, int]:
    """Decoder, background and last atrous rate from the name that person_table.py gave."""
    decoder, background, rate = file.stem.split("_")
    return decoder, int(background) / 100, int(rate)


def _row(file: Path) -> str:
    decoder, background, rate = _settings(file)
    return f"{NAMES[decoder]}, background {round(100 * background)} %, rate {rate}"


def _network(file: Path, args: argparse.Namespace) -> Masks:
    decoder, background, rate = _settings(file)
    model = build_low_cost_segmenter(
        num_classes=2, depth_multiplier=args.width, last_atrous_rate=rate, **DECODERS[decoder]
    )
    model.load_state_dict(torch.load(file, weights_only=True))
    model.to(args.device).eval()
    return lambda pixels, boxes, _: _segmented(model, pixels, boxes, background, args)


@torch.inference_mode()
def _segmented(
    model: LowCostSegmenter,
    pixels: np.ndarray,
    boxes: np.ndarray,
    background: float,
    args: argparse.Namespace,
) -> Tensor:
    """Masks bool [K, H, W]: crop, segment, paste back."""
    size, nobody = tuple(args.size), np.zeros(pixels.shape[:2], np.uint8)
    crops = [
        crop_person(pixels, Person("", Path(), tuple(box), nobody), size, background)[0]
        for box in boxes
    ]
    regions = torch.tensor([crop_region(tuple(box), size, background) for box in boxes])
    images = normalize(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255, MEAN, STD)
    logits = torch.cat([model(part.to(args.device)).cpu() for part in images.split(args.batch)])
    return paste_masks(logits[:, 1] - logits[:, 0], regions, pixels.shape[:2])


def _whole_boxes(pixels: np.ndarray, boxes: np.ndarray, _: int) -> Tensor:
    return paste_masks(torch.ones(len(boxes), 1, 1), torch.tensor(boxes), pixels.shape[:2])


def _annotated(truth: COCO, pixels: np.ndarray, boxes: np.ndarray, image_id: int) -> Tensor:
    """The mask of the annotated person with the largest IoU of boxes; empty where none meets."""
    people = truth.loadAnns(truth.getAnnIds(imgIds=[image_id], iscrowd=False))
    masks = torch.zeros(len(boxes), *pixels.shape[:2], dtype=torch.bool)
    if people:
        found = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        overlaps = rle_codec.iou(found, np.array([p["bbox"] for p in people]), [0] * len(people))
        for place in np.flatnonzero(overlaps.max(axis=1)):
            mask = truth.annToMask(people[overlaps[place].argmax()])
            masks[place] = torch.from_numpy(mask > 0)
    return masks


def _redrawn(
    truth: COCO, detections: Sequence[dict], masks: Masks, args: argparse.Namespace
) -> list[dict]:
    """The detections, in COCO's result format, with other masks."""
    results = []
    for image in truth.dataset["images"]:
        found = [d for d in detections if d["image_id"] == image["id"]]
        if not found:
            continue
        boxes = np.array([d["bbox"] for d in found], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        pixels = load_image(args.images / image["file_name"])
        for detection, mask in zip(found, masks(pixels, boxes, image["id"])):
            results.append({**detection, "segmentation": encode_mask(mask.numpy())})
    return results


def _score(truth: COCO, results: Sequence[dict]) -> list[float]:
    scores = coco_scores(truth, results, ["mask"])["mask"].all
    return [100 * scores[name] for name in METRICS]


def _mean(scores: Sequence[Sequence[float]]) -> list[float]:
    return [round(statistics.mean(column), 2) for column in zip(*scores)]


def _draw(truth: COCO, results: Sequence[dict], args: argparse.Namespace, file: Path) -> None:
    """Write the first four photographs with the masks of the boxes that score above 0.3."""
    shown = []
    for image in truth.dataset["images"][:4]:
        codes = [
            r["segmentation"] for r in results if r["image_id"] == image["id"] and r["score"] > 0.3
        ]
        photograph = torch.from_numpy(load_image(args.images / image["file_name"])).permute(2, 0, 1)
        if codes:
            masks = torch.from_numpy(rle_codec.decode(codes)).permute(2, 0, 1) > 0
            photograph = draw_segmentation_masks(photograph, masks, 0.6)
        picture = cv2.resize(photograph.permute(1, 2, 0).numpy(), (320, 240))
        shown.append(torch.from_numpy(picture).permute(2, 0, 1) / 255)
    save_image(torch.cat(shown, dim=2), file)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--val-json", required=True, help="COCO format")
    add("--images", required=True, type=Path, metavar="DIR")
    add("--detector", required=True, type=Path, metavar="DIR", help="output of small_data.py")
    add("--networks", required=True, nargs="+", type=Path, metavar="FILE", help="weights")
    add("--output", required=True, type=Path, metavar="DIR", help="table.json and pictures")
    add("--size", nargs=2, type=int, default=[160, 96], metavar=("H", "W"))
    add("--width", type=float, default=1.0, help="MobileNet's depth multiplier")
    add("--batch", type=int, default=16)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--record", action="store_true", help="write into results.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
