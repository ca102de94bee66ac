"""Pieces of a self-contained HTML page: tables, pictures, large numbers, a confusion matrix."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segroi.utils.coco import METRICS

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em;
       color: #1c2330 }
h1 { margin-bottom: .1em }
h2 { margin-top: 1.8em; border-bottom: 1px solid #d5dae3; padding-bottom: .2em }
h3 { margin: 1.2em 0 .2em }
table { border-collapse: collapse; margin: .6em 0 }
th, td { padding: .25em .8em; border-bottom: 1px solid #e5e8ee; text-align: right;
         font-variant-numeric: tabular-nums }
th { background: #f3f5f9 }
th:first-child, td:first-child, .words { text-align: left }
.words { max-width: 24em; overflow-wrap: anywhere }
img { max-width: 100%; margin: .3em 0 }
nav a { margin-right: 1.2em }
.big { display: inline-block; margin: .4em 1.4em .4em 0 }
.big b { font-size: 2em; display: block }
.note { color: #667085 }
.wide { overflow-x: auto }
.matrix td, .matrix th { padding: .2em .5em; text-align: center; border: 0 }
.matrix tr:first-child th { vertical-align: bottom }
.crops { display: flex; flex-wrap: wrap; gap: 10px }
.crops figure { margin: 0; width: 192px; font-size: 12px; line-height: 1.35 }
.crops img { display: block; max-height: 192px }
.real { color: #12a150; font-weight: 600 }
.found { color: #e0348a; font-weight: 600 }
details pre { background: #f3f5f9; padding: 1em; overflow: auto; font-size: 12px }
@media (prefers-color-scheme: dark) {
  body { background: #14171d; color: #dfe4ee }
  th, details pre { background: #222834 }
  td, th, h2 { border-color: #333b4a }
  a { color: #8ab4ff }
}
"""


def ap_table(
    rows: Sequence[tuple[str, Mapping[str, float]]], metrics: Sequence[str] = METRICS
) -> str:
    """HTML table of numbers of 0 to 1 in percent, one row a name; below 0 stays empty."""
    body = [[name, *(percent(numbers.get(m)) for m in metrics)] for name, numbers in rows]
    return table(["", *metrics], body)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], words: bool = False) -> str:
    """HTML table; what is None stays empty.

    Args:
        head: names of the columns.
        rows: cells.
        words: treat every cell as words, which stand to the left; numbers stand to the right.
    """
    cells = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    lines = [f"<tr>{cells}</tr>"]
    for row in rows:
        texts = ["" if cell is None else str(cell) for cell in row]
        kinds = [' class="words"' * (words or any(map(str.isalpha, t))) for t in texts]
        cells = "".join(f"<td{kind}>{html.escape(t)}</td>" for kind, t in zip(kinds, texts))
        lines.append(f"<tr>{cells}</tr>")
    return '<div class="wide"><table>' + "".join(lines) + "</table></div>"


def picture(path: Path, note: str = "") -> str:
    """An image file embedded in HTML."""
    kind = "jpeg" if path.suffix.lower() in (".jpg", ".jpeg") else "png"
    return _image(path.read_bytes(), kind, note or path.stem)


def photograph(pixels: np.ndarray, note: str) -> str:
    """``uint8 [H, W, 3]`` RGB embedded in HTML as JPEG: a tenth of the bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=88)
    return _image(file.getvalue(), "jpeg", note)


def crops(pictures: Sequence[tuple[np.ndarray, Sequence[str]]]) -> str:
    """Small pictures side by side, under each its lines."""
    figures = []
    for pixels, lines in pictures:
        text = "<br>".join(map(html.escape, lines))
        image = photograph(pixels, " ".join(lines))
        figures.append(f"<figure>{image}<figcaption>{text}</figcaption></figure>")
    return f'<div class="crops">{"".join(figures)}</div>'


def headline(numbers: Mapping[str, str]) -> str:
    """A row of large numbers with what they are."""
    return "".join(
        f'<div class="big"><b>{html.escape(value)}</b>{html.escape(name)}</div>'
        for name, value in numbers.items()
    )


def note(text: str) -> str:
    """A line of explanation."""
    return f'<p class="note">{html.escape(text)}</p>'


def folded(summary: str, content: str) -> str:
    """HTML that opens when its summary is clicked."""
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"


def matrix(names: Sequence[str], counts: np.ndarray, rest: tuple[str, str]) -> str:
    """A square table of counts, each row tinted by its parts of the row's sum.

    Args:
        names: of rows and columns but the last.
        counts: ``int [N + 1, N + 1]``.
        rest: names of the last column and of the last row.
    """
    columns, rows = [*names, rest[0]], [*names, rest[1]]
    lines = ["<th></th>" + "".join(f"<th>{html.escape(name)}</th>" for name in columns)]
    for name, row in zip(rows, counts):
        share = row / max(row.sum(), 1)
        cells = [f"<th>{html.escape(name)}</th>"]
        for column, (count, part) in enumerate(zip(row, share)):
            hue = 145 if len(lines) - 1 == column else 12  # right: green, wrong: red
            tint = f"hsl({hue} 70% 45% / {0.75 * part:.2f})"
            cells.append(f'<td style="background:{tint}">{count or ""}</td>')
        lines.append("".join(cells))
    text = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table class="matrix">{text}</table></div>'


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
    record = html.escape(json.dumps(origin, indent=2))
    origins = folded("versions, commit, device, command", f"<pre>{record}</pre>")
    sections = {**sections, "Where this comes from": origins}
    links = [f'<a href="#s{n}">{html.escape(s)}</a>' for n, s in enumerate(sections) if s]
    parts = [f"<h1>{html.escape(title)}</h1><nav>{''.join(links)}</nav>"]
    for number, (name, content) in enumerate(sections.items()):
        parts.append(f'<h2 id="s{number}">{html.escape(name)}</h2>' if name else "")
        parts.append(content)
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    path = Path(path)
    path.write_text(f"{head}<style>{_STYLE}</style>{''.join(parts)}</html>", encoding="utf-8")
    return path


def percent(value: float | None) -> str:
    """A number of 0 to 1 in percent; "" for None and below 0 (nothing to measure)."""
    return "" if value is None or value < 0 else f"{100 * value:.1f}"


def _image(data: bytes, kind: str, text: str) -> str:
    code = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/{kind};base64,{code}">'
