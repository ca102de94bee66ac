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
    """Train SSD-ISB and compare it with the run in ``folder``; the section of the report.

    It finds digits without naming them: to learn ten names from scratch takes it longer than a
    demo may. So the other run is evaluated without names, too.
    """
    import shutil

    import numpy as np
    from PIL import Image

    from segroi.utils.coco import IOU_TYPES, load_coco
    from segroi.utils.compare import compare_runs, read_run
    from segroi.utils.report import ap_table, note, photograph
    from segroi.utils.run_record import Truth, read_detections, record_evaluation

    compared = output / "compare"
    shutil.rmtree(compared, ignore_errors=True)
    nameless = _without_names(data, compared)
    _train_tv(SSD_CONFIG, output / "run-ssd-isb", nameless, iterations, before=False)
    truth = Truth(load_coco(nameless["val"]), nameless["images"], nameless["val"])
    found = [{**r, "category_id": 1} for r in read_detections(folder) or ()]
    record_evaluation(compared / "two-stages", truth, found, list(IOU_TYPES))
    first = read_run(compared / "two-stages", TWO_STAGES)
    second = read_run(output / "run-ssd-isb", ONE_STAGE)
    compare_runs(first, second, compared)
    lines = [(f"{r.name}, {kind}", n) for r in (first, second) for kind, n in r.evaluation.items()]
    text = note(
        f"{ONE_STAGE} is the one-stage system; its {second.rows[-1]['iteration']:.0f} iterations "
        "from scratch find digits without naming them, so names do not count here (%). The images "
        f"that differ most come first; {compared.name}/compare.html tells more."
    )
    drawn = sorted((compared / "pictures").glob("*.png"))
    pages = (photograph(np.asarray(Image.open(path)), path.stem) for path in drawn)
    return {f"{ONE_STAGE} beside it": text + ap_table(lines) + "".join(pages)}


def _without_names(data: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """The same scenes with one category."""
    folder.mkdir(parents=True)
    files = {"images": data["images"]}
    for split in ("train", "val"):
        content = json.loads(data[split].read_text())
        for annotation in content["annotations"]:
            annotation["category_id"] = 1
        content["categories"] = [{"id": 1, "name": "digit"}]
        files[split] = folder / f"{split}.json"
        files[split].write_text(json.dumps(content))
    return files


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
