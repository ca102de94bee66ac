"""Datasets for Detectron2's catalogues: any COCO-format file, and scenes of handwritten digits.

The digit scenes ``segroi_digits_train`` and ``segroi_digits_val`` are registered on import and
drawn when first used, into ``$DETECTRON2_DATASETS/segroi_digits`` (by default
``./datasets/segroi_digits``); ``segroi data make digits`` writes the same files.
"""

from __future__ import annotations

import argparse
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from iopath.common.file_io import file_lock
from omegaconf import DictConfig

from segroi.utils.data_check.gate import SKIP, refuse_broken_data
from segroi.utils.safe_files import inside

DIGITS = "segroi_digits"


def register_coco_json(json_file: str, image_root: str) -> str:
    """Register a COCO-format file with Detectron2; doing so twice is harmless.

    Args:
        json_file: annotations in COCO format.
        image_root: folder of the images.

    Returns:
        The dataset's name for ``DATASETS.TRAIN`` or ``get_detection_dataset_dicts``.

    Raises:
        FileNotFoundError: one of the two does not exist.
    """
    for path in (json_file, image_root):
        if not Path(path).exists():
            raise FileNotFoundError(f"register_coco_json: {path} does not exist")
    name = f"{Path(json_file).resolve()}@{Path(image_root).resolve()}"
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, partial(_load_inside, name, json_file, image_root))
        MetadataCatalog.get(name).set(
            json_file=json_file, image_root=image_root, evaluator_type="coco"
        )
    return name


def _load_inside(name: str, json_file: str, image_root: str) -> list[dict[str, Any]]:
    """Detectron2's records of a COCO-format file whose images all lie under ``image_root``."""
    for image in json.loads(Path(json_file).read_text(encoding="utf-8-sig"))["images"]:
        inside(image_root, image["file_name"])
    return load_coco_json(json_file, image_root, name)


def register_digits(root: str | Path) -> None:
    """Register the digit scenes, to be drawn under ``root`` when they are first used."""
    root = Path(root)
    for split in ("train", "val"):
        name, json_file = f"{DIGITS}_{split}", root / f"{split}.json"

        def load(name: str = name, json_file: Path = json_file) -> list[dict[str, Any]]:
            if not json_file.exists():
                _draw_digits(json_file)
            return load_coco_json(str(json_file), str(json_file.parent / "images"), name)

        DatasetCatalog.register(name, load)
        MetadataCatalog.get(name).set(
            json_file=str(json_file), image_root=str(root / "images"), evaluator_type="coco"
        )


def _draw_digits(json_file: Path) -> None:
    """Draw the scenes once, whichever of several processes comes first."""
    from segroi.utils.digits import make_digits

    json_file.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(json_file.parent)):
        if not json_file.exists():
            make_digits(json_file.parent)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that train and test on the user's own COCO-format files."""
    group = parser.add_argument_group("your own data, in COCO format")
    group.add_argument("--data-json", metavar="FILE", help="annotations to train on")
    group.add_argument("--images", metavar="DIR", help="their images")
    group.add_argument(
        "--val-json", metavar="FILE", help="annotations to test on (default: --data-json)"
    )
    group.add_argument("--val-images", metavar="DIR", help="their images (default: --images)")
    group.add_argument(SKIP, action="store_true", help="leave out the check of these files")


def check_data(args: argparse.Namespace) -> None:
    """Look quickly for what is wrong with the user's own files.

    Raises:
        UsageError: they have errors, and the check was not left out.
    """
    if not args.data_json or not args.images or args.no_data_check:
        return
    files = {(args.val_json or args.data_json, args.val_images or args.images)}
    if not args.eval_only:
        files.add((args.data_json, args.images))
    for data, images in sorted(files):
        refuse_broken_data(data, images)


def num_categories(json_file: str) -> int:
    """Number of categories of a COCO-format file."""
    return len(json.loads(Path(json_file).read_text(encoding="utf-8-sig"))["categories"])


def apply_data_arguments(cfg: CfgNode | DictConfig, args: argparse.Namespace) -> None:
    """Point a yacs or lazy config at the files of :func:`add_data_arguments`, if any were given.

    The config's expected results, which are those of other data, are dropped.
    """
    if not args.data_json:
        return
    if not args.images:
        raise SystemExit("--data-json needs --images DIR")
    val_json, val_images = args.val_json or args.data_json, args.val_images or args.images
    classes = num_categories(args.data_json)
    if isinstance(cfg, CfgNode):
        cfg.DATASETS.TRAIN = (register_coco_json(args.data_json, args.images),)
        cfg.DATASETS.TEST = (register_coco_json(val_json, val_images),)
        cfg.INPUT.MASK_FORMAT = "bitmask"  # takes polygons as well as run-length codes
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
        cfg.TEST.EXPECTED_RESULTS = []
        return
    register = L(register_coco_json)
    cfg.dataloader.train.dataset.names = register(json_file=args.data_json, image_root=args.images)
    cfg.dataloader.test.dataset.names = register(json_file=val_json, image_root=val_images)
    cfg.dataloader.train.mapper.instance_mask_format = "bitmask"
    cfg.model.roi_heads.num_classes = classes
    cfg.pop("TEST", None)


register_digits(Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser() / DIGITS)
