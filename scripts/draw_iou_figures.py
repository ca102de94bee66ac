#!/usr/bin/env python
"""Draw SBR-CNN's Fig. 3 from a run and Fig. 1 from a data set.

    python scripts/draw_iou_figures.py --metrics output/metrics.json --output figures
    python scripts/draw_iou_figures.py --config-file configs/d2/r3_cnn_naive_R_50_FPN_1x.yaml \
        --output figures
"""

from __future__ import annotations

import argparse
from pathlib import Path

from segroi.d2 import load_config
from segroi.d2.iou_figures import (
    draw_histograms,
    missing_anchor_fraction,
    read_loop_histogram,
    training_records,
)


def main(argv: list[str] | None = None) -> int:
    """Write samples_iou.png (Fig. 3) and anchors_iou.png (Fig. 1), as far as asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metrics", help="metrics.json of a run with RecursiveROIHeads")
    parser.add_argument("--config-file", help="yaml config with the anchors and the data set")
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs that override the config")
    args = parser.parse_args(argv)
    if not (args.metrics or args.config_file):
        parser.error("give --metrics, --config-file or both")
    args.output.mkdir(parents=True, exist_ok=True)
    if args.metrics:
        histogram = read_loop_histogram(args.metrics)
        labels = [f"loop {loop + 1}" for loop in range(len(histogram))]
        draw_histograms(
            histogram, args.output / "samples_iou.png", labels, "samples of the loop, %"
        )
    if args.config_file:
        cfg = load_config(args.config_file, args.opts)
        missing = missing_anchor_fraction(cfg, training_records(cfg))[None]
        what = "objects without an anchor, %"
        draw_histograms(missing, args.output / "anchors_iou.png", [what], what)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
