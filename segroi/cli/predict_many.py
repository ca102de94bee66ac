"""Find objects in very many images: in shards, by several workers, and on after a stop.

segroi predict-many IMAGES --weights runs/mine/model_final.pth --output DIR --workers 4

IMAGES is a folder (searched through all its folders) or a text file with a path on each line.
DIR/parts holds a JSON line for each image, as predictions.json of segroi predict has them; an image
that cannot be read has "error" instead. The same command goes on where it was stopped. Workers are
those of Ray Data (RAY_ADDRESS chooses a cluster); without --workers this process does the work, and
--part 3/16 lets a scheduler start 16 of them.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from segroi.utils.suggest import UsageError, existing_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's options."""
    add = parser.add_argument
    add("source", metavar="IMAGES", help="a folder, or a text file of paths")
    add("--weights", required=True, metavar="FILE", help="what segroi train wrote (or its folder)")
    add("--output", required=True, metavar="DIR", help="folder of the job")
    add("--workers", type=int, default=0, metavar="N", help="processes of Ray (default: this one)")
    add("--gpus-per-worker", type=float, metavar="X", help="default: 1 with a GPU; 0.5 shares one")
    add("--part", default="1/1", metavar="I/N", help="do the I-th of N parts of the job only")
    add("--shard-size", type=int, default=256, metavar="N", help="images a shard (%(default)s)")
    add("--threshold", type=float, default=0.5, help="lowest score that is kept (%(default)s)")
    add("--size", type=int, metavar="PX", help="short side, if other than in training")
    add("--device", default="", metavar="NAME", help="cpu, cuda, cuda:1, ...")
    add("--json", action="store_true", help="print the counts as JSON")


def run(args: argparse.Namespace) -> int:
    """Do what is left of the job and tell what was done; 1 where an image could not be read."""
    from segroi.tv.engine import pick_device
    from segroi.tv.run import weights_of
    from segroi.utils.progress import Progress
    from segroi.utils.safe_files import sha256
    from segroi.utils.sharded_job import PARTS, ShardedJob, run_here, run_on_ray

    share = _check(args)
    weights = existing_file(weights_of(args.weights), "weights file")
    settings = {"weights_sha256": sha256(weights), "threshold": args.threshold, "size": args.size}
    job = ShardedJob(args.output, find_files(args.source), args.shard_size, settings)
    shards = job.pending(share)
    make_worker = partial(ShardPredictor, str(weights), args.device, args.size, args.threshold)
    if shards and args.workers:
        gpus = args.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if pick_device(args.device).type == "cuda" else 0.0
        done = run_on_ray(job, shards, make_worker, args.workers, gpus)
    else:
        done = run_here(job, shards, make_worker) if shards else iter(())
    counts = {"images": 0, "unreadable": 0}
    with Progress("predict", sum(len(job.shard(index)) for index in shards)) as progress:
        for files, errors in done:
            progress.move_to(progress.done + files)
            counts = {"images": progress.done, "unreadable": counts["unreadable"] + errors}
    counts |= {"shards": len(job), "shards_left": len(job.pending())}
    if args.json:
        print(json.dumps(counts, indent=2))
    else:
        print(", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items()))
        print(f"results {Path(args.output) / PARTS}")
    return int(counts["unreadable"] > 0)


def find_files(source: str | Path) -> list[str]:
    """Absolute paths of the images of a folder and its folders, or of the lines of a text file."""
    from segroi.utils.images import SUFFIXES

    source = Path(source)
    if source.is_dir():
        found = (Path(where) / n for where, _, names in os.walk(source) for n in names)
        files = sorted(str(path.resolve()) for path in found if path.suffix.lower() in SUFFIXES)
        if not files:
            raise UsageError(f"folder {source} holds no image ({', '.join(SUFFIXES)})")
        return files
    lines = existing_file(source, "folder or list of images").read_text().splitlines()
    files = [str((source.parent / line).resolve()) for line in lines if line.strip()]
    if not files or len(set(files)) < len(files):
        raise UsageError(f"list {source} is empty or names an image twice")
    return files


class ShardPredictor:
    """A model that answers a list of files with a line for each.

    Args:
        weights: file of either host.
        device: "" takes the GPU where there is one.
        size: short side, if other than in training.
        threshold: detections with a lower score are left out.
    """

    def __init__(self, weights: str, device: str, size: int | None, threshold: float) -> None:
        from segroi.cli._model import load_detector

        self.model, self.categories = load_detector(weights, size, device, threshold)
        self.threshold = threshold

    def __call__(self, files: Sequence[str]) -> Iterator[dict]:
        """Predict the files of a shard."""
        import torch

        torch.manual_seed(0)  # GRoIE's random row draws levels at test too
        for file in files:
            yield self._line(file)

    def _line(self, file: str) -> dict:
        import torch

        from segroi.tv.evaluate import detect
        from segroi.tv.predict import above, describe_instances
        from segroi.utils.images import load_image

        try:
            pixels = load_image(file)
        except UsageError as error:
            return {"file": file, "error": str(error)}
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        found = above(detect(self.model, [image])[0], self.threshold)
        names = [self.categories[label - 1]["name"] for label in found["labels"].tolist()]
        height, width = pixels.shape[:2]
        instances = describe_instances(found, names)
        return {"file": file, "height": height, "width": width, "instances": instances}


def _check(args: argparse.Namespace) -> tuple[int, int]:
    """The share of the job that is asked for, counted from 0."""
    if not 0 <= args.threshold <= 1:
        raise UsageError(f"--threshold must be in 0..1, got {args.threshold}")
    if args.shard_size < 1 or args.workers < 0:
        raise UsageError("--shard-size must be at least 1 and --workers at least 0")
    words = args.part.split("/")
    numbers = [int(word) for word in words if word.isdigit()]
    if len(words) != 2 or len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise UsageError(f"--part must be I/N with I in 1..N, got {args.part!r}")
    return numbers[0] - 1, numbers[1]
