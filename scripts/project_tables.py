#!/usr/bin/env python
"""Write the tables of projects/*/README.md from projects/*/results.json.

A README marks the place of a table by ``<!-- table: ID -->`` and ``<!-- end -->``. In results.json
a table has an id, a title, its metrics and rows; a row has a name, a config (path in this
repository), the paper's numbers, and under "ours" either null (not run: the cells stay empty) or
{"values": [...], "commit": "...", "device": "...", "versions": "..."}; "spread" beside the values
of several runs is shown behind a ±. scripts/record_runs.py fills a row from runs.

    python scripts/project_tables.py            write
    python scripts/project_tables.py --check    tell what is out of date, exit 1
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(table: dict[str, Any], folder: Path) -> str:
    """Write one table as Markdown; links are relative to ``folder``."""
    metrics = " / ".join(table["metrics"])
    lines = [
        f"**{table['title']}** ({metrics})",
        "",
        "| | paper | ours | config | commit | device |",
        "|---|---|---|---|---|---|",
    ]
    for row in table["rows"]:
        ours = row["ours"] or {}
        cells = [
            row["name"],
            _numbers(row["paper"]),
            _numbers(ours.get("values"), ours.get("spread")),
            _link(row["config"], folder),
            ours.get("commit", ""),
            ", ".join(filter(None, (ours.get("device"), ours.get("versions")))),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def update(readme: Path) -> str:
    """The text of a README with every marked table written anew."""
    results = json.loads((readme.parent / "results.json").read_text())
    tables = {table["id"]: table for table in results["tables"]}
    text = readme.read_text()
    unknown = {match[1] for match in re.findall(PLACE, text)} ^ set(tables)
    if unknown:
        raise SystemExit(f"{readme}: tables in only one of README and results.json: {unknown}")
    return PLACE.sub(
        lambda match: f"{match[1]}{render(tables[match[2]], readme.parent)}\n{match[3]}", text
    )


def main(argv: list[str] | None = None) -> int:
    """Write or check every project's README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of date")
    args = parser.parse_args(argv)
    stale = []
    for source in sorted(ROOT.glob("projects/*/results.json")):
        readme = source.with_name("README.md")
        text = update(readme)
        if text != readme.read_text():
            stale.append(readme.relative_to(ROOT))
            if not args.check:
                readme.write_text(text)
    print("\n".join(f"{'out of date' if args.check else 'written'}: {path}" for path in stale))
    return int(args.check and bool(stale))


def _numbers(values: list[float] | None, spread: list[float] | None = None) -> str:
    cells = ["" if value is None else str(value) for value in values or []]
    if spread:
        cells = [f"{cell} ± {width}" if cell else "" for cell, width in zip(cells, spread)]
    return " / ".join(cells)


def _link(config: str, folder: Path) -> str:
    if not config:
        return ""
    if not (ROOT / config).is_file():
        raise SystemExit(f"{folder.name}/results.json: {config} does not exist")
    return f"[{Path(config).name}]({os.path.relpath(ROOT / config, folder)})"


if __name__ == "__main__":
    raise SystemExit(main())
