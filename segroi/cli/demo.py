"""Show the whole job in minutes: make digit scenes, train two models, evaluate, draw, report.

Trains a small Mask R-CNN with GRoIE on scenes of handwritten digits; evaluates box and mask AP
before and after; trains a smaller SSD-ISB for a minute and shows the masks of both side by side;
writes pictures and one HTML page; times the operators against torchvision's.
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
SSD_CONFIG = ROOT / "configs" / "tv" / "ssd_isb_digits.yaml"
TWO_STAGES, ONE_STAGE = "Mask R-CNN with GRoIE", "SSD-ISB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add("--host", choices=("d2", "tv"), help="Detectron2 (default where it imports) or torchvision")
    add("--output", default="output/demo", metavar="DIR", help="folder to write (%(default)s)")
    add("--iterations", type=int, metavar="N", help="shorten or lengthen the training")
    add("--images", type=int, default=600, metavar="N", help="training scenes (%(default)s)")
    add("--no-speed", action="store_true", help="leave the timing of the operators out")
    add("--no-ssd-isb", action="store_true", help="leave SSD-ISB out")


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
    say(f"1/5 drawing {args.images} scenes of handwritten digits into {output / 'data'}")
    data = make_digits(output / "data", train=args.images, val=max(4, args.images // 10))
    train = _on_detectron2 if host == "d2" else _on_torchvision
    say(f"2/5 training {TWO_STAGES} on {'Detectron2' if host == 'd2' else 'torchvision'}")
    folder, rows = train(output / f"run-{host}", data, args.iterations)
    more = {}
    if not args.no_ssd_isb:
        say(f"3/5 training {ONE_STAGE} on torchvision")
        more = _ssd_isb_beside(folder, output, data, args.iterations)
    say("4/5 timing the operators")
    speed = [] if args.no_speed else _speed(output / "speed.json")
    say("5/5 drawing the report")
    report = _report(folder, host, rows, data, speed, more)
    before, after = read_evaluation(folder / "before"), read_evaluation(folder)
    for kind, numbers in after.items():
        print(f"{kind:4s} AP {100 * before[kind]['AP']:5.1f} -> {100 * numbers['AP']:5.1f}")
    print(f"pictures {folder / 'pictures'}\nreport   {report.resolve()}")
    print(f"done in {time.perf_counter() - started:.0f} s")
    return 0


def _on_torchvision(
    folder: Path, data: Mapping[str, Path], iterations: int | None
) -> tuple[Path, list[dict]]:
    from segroi.utils.run_record import read_rows

    _train_tv(TV_CONFIG, folder, data, iterations, before=True)
    return folder, read_rows(folder)


def _train_tv(
    file: Path, folder: Path, data: Mapping[str, Path], iterations: int | None, before: bool
) -> None:
    """Train and evaluate a config of the torchvision host; the folder is emptied first."""
    import shutil

    from segroi.tv.config import load_config
    from segroi.tv.run import train

    shutil.rmtree(folder, ignore_errors=True)
    changes = {} if iterations is None else {"iterations": iterations}
    config = load_config(
        file,
        data=str(data["train"]),
        images=str(data["images"]),
        val_data=str(data["val"]),
        output=str(folder),
        **changes,
    )
    train(config, before=before)


def _ssd_isb_beside(
    folder: Path, output: Path, data: Mapping[str, Path], iterations: int | None
) -> dict[str, str]:
    """Train SSD-ISB and compare it with the run in ``folder``; the section of the report."""
    import shutil

    import numpy as np
    from PIL import Image

    from segroi.utils.compare import compare_runs, read_run
    from segroi.utils.report import ap_table, note, photograph

    _train_tv(SSD_CONFIG, output / "run-ssd-isb", data, iterations, before=False)
    runs = read_run(folder, TWO_STAGES), read_run(output / "run-ssd-isb", ONE_STAGE)
    compared = output / "compare"
    shutil.rmtree(compared, ignore_errors=True)
    compare_runs(*runs, compared)
    lines = [(f"{run.name}, {kind}", n) for run in runs for kind, n in run.evaluation.items()]
    text = note(
        f"{ONE_STAGE} is the one-stage system, trained from scratch for "
        f"{runs[1].rows[-1]['iteration']:.0f} iterations. The images that differ most come first; "
        f"{compared.name}/compare.html tells more."
    )
    drawn = sorted((compared / "pictures").glob("*.png"))
    pages = (photograph(np.asarray(Image.open(path)), path.stem) for path in drawn)
    return {f"{ONE_STAGE} beside it (%)": text + ap_table(lines) + "".join(pages)}


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
    more: Mapping[str, str],
) -> Path:
    from segroi.utils.coco import load_coco
    from segroi.utils.provenance import provenance
    from segroi.utils.run_record import Truth
    from segroi.utils.run_report import report_run

    name = {"d2": "Detectron2", "tv": "torchvision"}[host]
    title = f"{TWO_STAGES} on handwritten digits ({name})"
    truth = Truth(load_coco(data["val"]), data["images"], data["val"])
    return report_run(folder, title, rows, truth, provenance(), speed, more=more)
