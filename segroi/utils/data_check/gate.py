"""The quick check that stands before every training."""

from __future__ import annotations

from pathlib import Path

from segroi.utils.data_check.check import check_dataset
from segroi.utils.data_check.findings import Findings
from segroi.utils.data_check.rules import ERROR, RULES, WARNING
from segroi.utils.progress import say
from segroi.utils.suggest import UsageError

SKIP = "--no-data-check"
_SHOWN = 5


def refuse_broken_data(annotations: str | Path, images: str | Path, skip: str = SKIP) -> None:
    """Check data quickly; warnings are told in a line.

    Args:
        annotations: COCO-format file.
        images: its image folder.
        skip: what the user can give to leave the check out.

    Raises:
        UsageError: the data has errors; the text names the first of each kind.
    """
    findings = check_dataset(annotations, images, quick=True)
    more = f"segroi data check {annotations} --images {images}"
    if not findings.ok:
        lines = [*describe(findings, ERROR), f"All of it: {more}", f"Train anyway: {skip}"]
        raise UsageError(f"{annotations} has {_count(findings, ERROR)}:\n  " + "\n  ".join(lines))
    if findings.total(WARNING):
        say(f"{annotations} has {_count(findings, WARNING)} ({more} tells more):")
        for line in describe(findings, WARNING):
            say(f"  {line}")


def describe(findings: Findings, severity: str, most: int = _SHOWN) -> list[str]:
    """A line for the first finding of each code of that severity."""
    chosen = [(c, f[0]) for c, f in findings.by_severity() if RULES[c].severity == severity]
    lines = []
    for code, first in chosen[:most]:
        others = f" (and {findings.counts[code] - 1} more)" if findings.counts[code] > 1 else ""
        lines.append(f"{code}: {first.where}: {first.what}{others}")
    return lines + ([f"... and {len(chosen) - most} other kinds"] if len(chosen) > most else [])


def _count(findings: Findings, severity: str) -> str:
    total = findings.total(severity)
    return f"{total} {severity}{'s' if total > 1 else ''}"
