"""What a check found, counted by code, with the first of each kind in full."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from segroi.utils.data_check.rules import ERROR, RULES, SEVERITIES


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    ``kind`` ("file", "category", "image" or "annotation") and ``id`` say which entry of ``file``;
    the id is the entry's own, or ``None`` for a whole file.
    """

    code: str
    severity: str
    file: str
    kind: str
    id: int | str | None
    what: str
    fix: str

    @property
    def where(self) -> str:
        """The entry, for people."""
        return self.kind if self.id is None else f"{self.kind} {self.id}"


class Findings:
    """Collects what is wrong with one annotation file.

    Args:
        file: the file, as findings name it.
        keep: findings of a code that are kept in full; all are counted.
    """

    def __init__(self, file: str, keep: int = 100) -> None:
        self.file, self.keep = file, keep
        self.counts: Counter[str] = Counter()
        self.kept: dict[str, list[Finding]] = defaultdict(list)
        # Positions in the file's list of images or annotations, for `repair`.
        self.positions: dict[str, set[int]] = defaultdict(set)

    def add(
        self,
        code: str,
        what: str,
        kind: str = "file",
        id: int | str | None = None,
        position: int | None = None,
    ) -> None:
        """Note one finding; ``position`` is that of the entry in its list."""
        self.counts[code] += 1
        if position is not None:
            self.positions[code].add(position)
        if len(self.kept[code]) < self.keep:
            rule = RULES[code]
            self.kept[code].append(
                Finding(code, rule.severity, self.file, kind, id, what, rule.fix)
            )

    def total(self, severity: str) -> int:
        """How many findings have that severity."""
        return sum(n for code, n in self.counts.items() if RULES[code].severity == severity)

    @property
    def ok(self) -> bool:
        """Whether training may start."""
        return self.total(ERROR) == 0

    def by_severity(self) -> list[tuple[str, list[Finding]]]:
        """Codes with their kept findings, the worst first, then the most frequent."""
        order = {severity: i for i, severity in enumerate(SEVERITIES)}
        codes = sorted(self.counts, key=lambda c: (order[RULES[c].severity], -self.counts[c], c))
        return [(code, self.kept[code]) for code in codes]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "file": self.file,
            **{f"{severity}s": self.total(severity) for severity in SEVERITIES[:2]},
            "counts": dict(self.counts),
            "findings": [asdict(f) for _, findings in self.by_severity() for f in findings],
        }
