"""Write the README's speed table and a plot from the committed results/*.json.

python scripts/benchmarks/report.py            write README.md and results/speed.png
python scripts/benchmarks/report.py --check    exit 1 where the README is out of date
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
WHAT = {
    "W1": "512 RoIs, 7×7, one level each",
    "W2": "128 RoIs, 14×14, one level each",
    "W3": "512 RoIs, 7×7, sum of every level (GRoIE)",
}


def load() -> dict[str, dict[str, Any]]:
    """Every committed record by file name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def ratios(table: dict[str, Any]) -> dict[str, float]:
    """How many times faster than its first row every row of a table is."""
    first = next(iter(table["milliseconds"].values()))
    return {name: first / value for name, value in table["milliseconds"].items()}


def cell(tables: list[dict[str, Any]], row: str, **facts: object) -> str:
    """Ratios of one row at every thread count that was measured, `10.2 / 18.4`."""
    found = [t for t in tables if all(t.get(key) == value for key, value in facts.items())]
    found = sorted(found, key=lambda t: t["threads"])
    return " / ".join(f"{ratios(t)[row]:.1f}" for t in found if row in t["milliseconds"])


def pooling(record: dict[str, Any]) -> list[str]:
    """Lines of the multi_level_roi_align table."""
    lines = [
        "| times faster, 1 / 2 threads | forward | forward, channels_last | backward | "
        "backward, channels_last |",
        "|---|---|---|---|---|",
    ]
    for workload, what in WHAT.items():
        for sampling in (0, 2):
            word = "adaptive sampling" if sampling == 0 else "2×2 samples"
            cells = [
                cell(
                    record["tables"],
                    f"segroi, {layout}",
                    workload=workload,
                    sampling=sampling,
                    direction=direction,
                )
                for direction in ("forward", "backward")
                for layout in ("NCHW", "channels_last")
            ]
            lines.append(f"| {what}, {word} | {' | '.join(cells)} |")
    return lines


GPU = "multi_level_roi_align_h200"
GPU_ROWS = {
    "A": "1000 RoIs, 7×7, one image",
    "B": "8 images, 512 RoIs each, 7×7",
    "W2": WHAT["W2"],
    "W3": WHAT["W3"],
}


def on_gpu(record: dict[str, Any]) -> list[str]:
    """Lines of the table of a GPU."""
    lines = [
        "| ms (times faster), adaptive sampling | forward | forward, channels_last | backward | "
        "backward, channels_last |",
        "|---|---|---|---|---|",
    ]
    for workload, what in GPU_ROWS.items():
        for dtype in ("float32", "float16"):
            cells = []
            for direction in ("forward", "backward"):
                for layout in ("NCHW", "channels_last"):
                    facts = {"workload": workload, "sampling": 0, "direction": direction}
                    table = next(
                        t for t in record["tables"]
                        if t.get("dtype") == dtype and facts.items() <= t.items()
                    )  # fmt: skip
                    row = f"segroi, {layout}"
                    cells.append(f"{table['milliseconds'][row]:.2f} ({ratios(table)[row]:.1f}×)")
            lines.append(f"| {what}, {dtype} | {' | '.join(cells)} |")
    return lines


def others(record: dict[str, Any]) -> list[str]:
    """Lines of a record whose tables have no facts: every row beside the first."""
    whole = "megabytes" in record["tables"][0]  # systems: bench_models.py
    more = (" p95, ms | peak, MB |", "---|---|") if whole else ("", "")
    lines = [
        f"| | row | ms | times faster than the first |{more[0]}",
        f"|---|---|---|---|{more[1]}",
    ]
    for table in record["tables"]:
        for name, ratio in ratios(table).items():
            value = table["milliseconds"][name]
            line = f"| {table['title']} | {name} | {value:.2f} | {ratio:.2f} |"
            if whole:
                line += f" {table['p95'][name]:.2f} | {table['megabytes'][name]:.0f} |"
            lines.append(line)
    if whole:
        lines += ["", *(f"{t['title']}: {t['setting']}, {t['threads']} threads." for t in
                        record["tables"])]  # fmt: skip
    return lines


def origin(record: dict[str, Any]) -> str:
    """One line that says where a record comes from."""
    versions = ", ".join(f"{name} {version}" for name, version in record["packages"].items())
    loads = [t["load"] for t in record["tables"]]
    return (
        f"{record['device']}; {versions}; commit {record['commit'][:9]}; load average "
        f"{min(loads):.1f} to {max(loads):.1f}"
    )


def render(records: dict[str, dict[str, Any]]) -> str:
    """The README's section."""
    lines: list[str] = []
    record = records["multi_level_roi_align"]
    lines += [
        "`multi_level_roi_align` on an 800×1216 px image, P2 to P5 of 256 channels, float32, "
        "beside Detectron2's `ROIPooler` (the sums beside torchvision's `roi_align` level by "
        "level):",
        "",
        *pooling(record),
        "",
        f"{origin(record)}.",
        "",
        "On a GPU, beside the same, end to end. One launch forward and two backward, no host "
        "synchronisation, deterministic:",
        "",
        *on_gpu(records[GPU]),
        "",
        f"{origin(records[GPU])}.",
        "",
    ]
    lines += [
        "![Times faster than the peer](scripts/benchmarks/results/speed.png)",
        "",
        "All measurements, the other operators' too, are in "
        "[scripts/benchmarks/results](scripts/benchmarks/results/README.md); "
        "`scripts/benchmarks/bench_<operator>.py` makes them, rows taking turns in one process.",
    ]
    return "\n".join(lines)


def full(records: dict[str, dict[str, Any]]) -> str:
    """The page of all measurements."""
    lines = ["# Measurements", "", "Written by `scripts/benchmarks/report.py` from the JSON here."]
    for name, record in records.items():
        lines += ["", f"## {name}", "", f"{origin(record)}.", "", *others(record)]
    return "\n".join(lines) + "\n"


def plot(records: dict[str, dict[str, Any]], path: Path) -> None:
    """Bars: how many times faster than the peer, by workload."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    record = next(r for name, r in records.items() if name.startswith("multi_level_roi_align"))
    tables = [t for t in record["tables"] if "workload" in t and t["threads"] == 1]
    what = {"W1": "7×7", "W2": "14×14", "W3": "7×7, sum"}
    labels = [
        f"{what[t['workload']]}\n{'2×2' if t['sampling'] else 'adaptive'}\n{t['direction']}"
        for t in tables
    ]
    figure, axes = plt.subplots(figsize=(10, 3.6), dpi=120)
    for shift, (row, colour) in enumerate(
        (("segroi, NCHW", "#4c72b0"), ("segroi, channels_last", "#dd8452"))
    ):
        heights = [ratios(t).get(row, 0) for t in tables]
        at = [i + 0.4 * shift for i in range(len(tables))]
        bars = axes.bar(at, heights, 0.38, label=row.removeprefix("segroi, "), color=colour)
        axes.bar_label(bars, [f"{h:.0f}×" for h in heights], fontsize=8)
    axes.set_xticks([i + 0.2 for i in range(len(tables))], labels, fontsize=8)
    axes.set_ylabel("times faster than the peer")
    axes.set_title(
        f"multi_level_roi_align, float32, one thread of {record['device'].split(',')[0]}",
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Write, or check, the README's section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    records = load()
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    new = f"{before}{BEGIN}\n{render(records)}\n{END}{after}"
    if args.check:
        raise SystemExit(0 if new == text else "README.md: run scripts/benchmarks/report.py")
    readme.write_text(new)
    (RESULTS / "README.md").write_text(full(records))
    plot(records, RESULTS / "speed.png")


if __name__ == "__main__":
    main()
