"""Reading an annotation file so that whatever is wrong with its text is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segroi.utils.data_check.findings import Findings

LISTS = ("images", "annotations", "categories")
HUGE = 2 * 2**30  # bytes
_BOM = b"\xef\xbb\xbf"


def read_content(path: Path, findings: Findings) -> dict[str, Any] | None:
    """The content of a COCO-format file; None where it cannot be used at all."""
    size = path.stat().st_size
    if size > HUGE:
        findings.add("json-huge", f"{size / 2**30:.1f} GiB; reading it takes about ten times that")
    raw = path.read_bytes()
    if raw.startswith(_BOM):
        findings.add("json-bom", "begins with a byte order mark")
        raw = raw[len(_BOM) :]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        findings.add("json-encoding", f"byte {error.start} is no UTF-8")
        return None
    content = _parse(text, findings)
    return content if content is not None and _is_coco(content, findings) else None


def _parse(text: str, findings: Findings) -> Any:
    tokens: list[str] = []

    def constant(token: str) -> float:
        tokens.append(token)
        return float(token.replace("Infinity", "inf"))

    try:
        content = json.loads(text, parse_constant=constant)
    except json.JSONDecodeError as error:
        whole = len(text.rstrip())
        # A text that is cut off fails at its end, or in a string that does not end.
        cut = error.pos >= whole - 1 or error.msg.startswith("Unterminated string")
        code = "json-truncated" if cut else "json-invalid"
        findings.add(code, f"line {error.lineno}, column {error.colno}: {error.msg}")
        return None
    except RecursionError:
        findings.add("json-invalid", "is nested too deeply")
        return None
    if tokens:
        findings.add("json-nan", f"{len(tokens)} of {', '.join(sorted(set(tokens)))}")
    return content


def _is_coco(content: Any, findings: Findings) -> bool:
    if not isinstance(content, dict):
        what = "is a list, as of detections" if isinstance(content, list) else "is no object"
        findings.add("not-coco", what)
        return False
    missing = [name for name in LISTS if not isinstance(content.get(name), list)]
    if missing:
        found = ", ".join(map(str, content)) or "nothing"
        findings.add("not-coco", f"has no list {', '.join(missing)}; it has {found}")
    return not missing
