"""One self-contained HTML file about a run: curves, AP, pictures, speed, where it comes from."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO

from segroi.utils.coco import METRICS
from segroi.utils.images import load_image
from segroi.utils.visualisation import beside, draw_instances, save_picture

Metrics = Mapping[str, Mapping[str, float]]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em;
       color: #1c2330 }
h1 { margin-bottom: .1em }
h2 { margin-top: 1.8em; border-bottom: 1px solid #d5dae3; padding-bottom: .2em }
table { border-collapse: collapse; margin: .6em 0 }
th, td { padding: .25em .8em; border-bottom: 1px solid #e5e8ee; text-align: right;
         font-variant-numeric: tabular-nums }
th { background: #f3f5f9 }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; margin: .3em 0 }
.big { display: inline-block; margin: .4em 1.4em .4em 0 }
.big b { font-size: 2em; display: block }
details pre { background: #f3f5f9; padding: 1em; overflow: auto; font-size: 12px }
@media (prefers-color-scheme: dark) {
  body { background: #14171d; color: #dfe4ee }
  th, details pre { background: #222834 }
  td, th, h2 { border-color: #333b4a }
}
"""


def ap_table(rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """HTML table of COCO's twelve numbers, in percent, one row a name."""
    body = [[name, *(_percent(numbers.get(m)) for m in METRICS)] for name, numbers in rows]
    return table(["", *METRICS], body)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """HTML table of text; what is None stays empty."""
    cells = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    lines = [f"<tr>{cells}</tr>"]
    for row in rows:
        texts = ("" if cell is None else html.escape(str(cell)) for cell in row)
        lines.append("<tr>" + "".join(f"<td>{text}</td>" for text in texts) + "</tr>")
    return "<table>" + "".join(lines) + "</table>"


def picture(path: Path, note: str = "") -> str:
    """An image file embedded in HTML."""
    kind = "jpeg" if path.suffix.lower() in (".jpg", ".jpeg") else "png"
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(note or path.stem)}" src="data:image/{kind};base64,{data}">'


def headline(numbers: Mapping[str, str]) -> str:
    """A row of large numbers with what they are."""
    return "".join(
        f'<div class="big"><b>{html.escape(value)}</b>{html.escape(name)}</div>'
        for name, value in numbers.items()
    )


def write_report(
    path: str | Path,
    title: str,
    sections: Mapping[str, str],
    origin: Mapping[str, object],
) -> Path:
    """Write the page.

    Args:
        path: HTML file to write.
        title: its heading.
        sections: HTML by heading, in order; a heading of "" has none.
        origin: what ``segroi.utils.provenance.provenance`` says, shown folded at the end.
    """
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for name, content in sections.items():
        parts.append((f"<h2>{html.escape(name)}</h2>" if name else "") + content)
    record = html.escape(json.dumps(origin, indent=2))
    parts.append(f"<h2>Where this comes from</h2><details><pre>{record}</pre></details>")
    head = f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title>'
    path = Path(path)
    path.write_text(f"{head}<style>{_STYLE}</style>{''.join(parts)}", encoding="utf-8")
    return path


def draw_comparisons(
    folder: str | Path,
    truth: COCO,
    images: str | Path,
    results: Sequence[dict],
    count: int = 6,
    threshold: float = 0.5,
) -> list[Path]:
    """Ground truth beside detections, for the first images of a dataset.

    Args:
        folder: where the PNGs go.
        truth: ground truth.
        images: folder of the images.
        results: detections in COCO's result format.
        count: number of images.
        threshold: detections with a lower score are not drawn.
    """
    shown = [result for result in results if result["score"] >= threshold]
    paths = []
    for image_id in sorted(truth.imgs)[:count]:
        entry = truth.imgs[image_id]
        pixels = load_image(Path(images) / entry["file_name"], (entry["height"], entry["width"]))
        real = [a for a in truth.imgToAnns[image_id] if not a.get("iscrowd", 0)]
        found = [r for r in shown if r["image_id"] == image_id]
        pictures = [_draw(pixels, truth, real), _draw(pixels, truth, found)]
        titles = (f"ground truth: {len(real)}", f"found: {len(found)}")
        name = f"{Path(entry['file_name']).stem}.png"
        paths.append(save_picture(Path(folder) / name, beside(pictures, titles)))
    return paths


def _draw(pixels: np.ndarray, truth: COCO, instances: Sequence[dict]) -> np.ndarray:
    boxes = np.array([i["bbox"] for i in instances], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = [_mask(truth, i) for i in instances if i.get("segmentation")]
    return draw_instances(
        pixels,
        boxes,
        [truth.cats[i["category_id"]]["name"] for i in instances],
        np.stack(masks) if masks else None,
        [i["score"] for i in instances] if instances and "score" in instances[0] else None,
        [i["category_id"] for i in instances],
    )


def _mask(truth: COCO, instance: dict) -> np.ndarray:
    if "score" in instance:
        return rle_codec.decode(instance["segmentation"]).astype(bool)
    return truth.annToMask(instance).astype(bool)


def _percent(value: float | None) -> str:
    return "" if value is None or value < 0 else f"{100 * value:.1f}"
