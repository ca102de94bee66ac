"""Show the whole job in minutes: make digit scenes, train with GRoIE, evaluate, draw, report.

Trains a small Mask R-CNN with GRoIE on scenes of handwritten digits; evaluates box and mask AP
before and after; writes pictures and one HTML page; times the operators against torchvision's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from segroi.utils.suggest import UsageError

ROOT = Path(__file__).parents[2]
TV_CONFIG = ROOT / "configs" / "tv" / "mask_rcnn_groie_digits.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add("--host", choices=("d2", "tv"), help="Detectron2 (default where it imports) or torchvision")
    add("--output", default="output/demo", metavar="DIR", help="folder to write (%(default)s)")
    add("--iterations", type=int, metavar="N", help="shorten or lengthen the training")
    add("--images", type=int, default=600, metavar="N", help="training scenes (%(default)s)")
    add("--no-speed", action="store_true", help="leave the timing of the operators out")


def run(args: argparse.Namespace) -> int:
    """Run the demo and tell the AP and where to look."""
    if not TV_CONFIG.exists():
        raise UsageError(f"the demo needs a checkout of segroi: there is no {TV_CONFIG}")
    from segroi.cli._detectron2 import check_installed
    from segroi.utils.digits import make_digits
    from segroi.utils.progress import say
    from segroi.utils.run_report import read_evaluation

    started = time.perf_counter()
    host = args.host or ("d2" if importlib.util.find_spec("detectron2") else "tv")
    if host == "d2":
        check_installed()
    output = Path(args.output)
    say(f"1/4 drawing {args.images} scenes of handwritten digits into {output / 'data'}")
    data = make_digits(output / "data", train=args.images, val=max(4, args.images // 10))
    train = _on_detectron2 if host == "d2" else _on_torchvision
    say(f"2/4 training Mask R-CNN with GRoIE on {'Detectron2' if host == 'd2' else 'torchvision'}")
    folder, rows = train(output / f"run-{host}", data, args.iterations)
    say("3/4 timing the operators")
    speed = [] if args.no_speed else _speed(output / "speed.json")
    say("4/4 drawing the report")
    report = _report(folder, host, rows, data, speed)
    before, after = read_evaluation(folder / "before"), read_evaluation(folder)
    for kind, numbers in after.items():
        print(f"{kind:4s} AP {100 * before[kind]['AP']:5.1f} -> {100 * numbers['AP']:5.1f}")
    print(f"pictures {folder / 'pictures'}\nreport   {report.resolve()}")
    print(f"done in {time.perf_counter() - started:.0f} s")
    return 0


def _on_torchvision(
    folder: Path, data: Mapping[str, Path], iterations: int | None
) -> tuple[Path, list[dict]]:
    import shutil

    from segroi.tv.config import load_config
    from segroi.tv.run import train
    from segroi.utils.run_record import read_rows

    shutil.rmtree(folder, ignore_errors=True)
    changes = {} if iterations is None else {"iterations": iterations}
    config = load_config(
        TV_CONFIG,
        data=str(data["train"]),
        images=str(data["images"]),
        val_data=str(data["val"]),
        output=str(folder),
        **changes,
    )
    train(config, before=True)
    return folder, read_rows(folder)


def _on_detectron2(
    folder: Path, data: Mapping[str, Path], iterations: int | None
) -> tuple[Path, list[dict]]:
    from segroi.cli._detectron2 import run_digits

    return folder, run_digits(folder, data, iterations)


def _speed(path: Path) -> list[dict[str, object]]:
    """Rows of the speed table, measured now."""
    from segroi.cli._demo_speed import measure

    rows = measure()
    path.write_text(json.dumps(rows, indent=2))
    return rows


def _report(
    folder: Path,
    host: str,
    rows: Sequence[Mapping[str, float]],
    data: Mapping[str, Path],
    speed: Sequence[Mapping[str, object]],
) -> Path:
    from segroi.utils.coco import load_coco
    from segroi.utils.provenance import provenance
    from segroi.utils.run_record import Truth
    from segroi.utils.run_report import report_run

    name = {"d2": "Detectron2", "tv": "torchvision"}[host]
    title = f"Mask R-CNN with GRoIE on handwritten digits ({name})"
    truth = Truth(load_coco(data["val"]), data["images"], data["val"])
    return report_run(folder, title, rows, truth, provenance(), speed)
