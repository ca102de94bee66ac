"""The systems that Detectron2 trains: the lazy configs of a checkout."""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from segroi.utils.suggest import UsageError, unknown

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "d2"
_RECIPE = re.compile(r"_\dx$")


@dataclass(frozen=True)
class System:
    """A lazy config: where it lies, what it needs, and the page about it."""

    name: str
    config: str
    what: str
    needs: str
    page: str


def detectron2_systems() -> list[System]:
    """The lazy configs of ``configs/d2``, and those of projects that have none there."""
    pages = {path: path.read_text(encoding="utf-8") for path in ROOT.glob("projects/*/README.md")}
    systems = [_system(path, pages) for path in sorted(CONFIGS.glob("*.py"))]
    shown = {system.page for system in systems}
    for page in sorted(pages):
        if _relative(page.parent) not in shown:
            files = sorted((page.parent / "configs").glob("*.py"))
            systems += [_system(path, {page: path.stem}) for path in files]
    return systems


def check_name(name: str) -> None:
    """Raise a UsageError with the nearest models of both hosts unless torchvision has this one."""
    from segroi.tv.models import MODELS

    if not name or name in MODELS:
        return
    theirs = lazy_configs()
    if name in theirs:
        raise UsageError(f"model {name} is one of Detectron2: --host d2 trains {theirs[name].stem}")
    known = {n: n if n in MODELS else f"{n} (--host d2)" for n in (*theirs, *MODELS)}
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if not near:
        raise UsageError(unknown("model", name, MODELS))
    hint = " or ".join(known[n] for n in near)
    raise UsageError(f"unknown model {name!r}: did you mean {hint}?")


def lazy_configs() -> dict[str, Path]:
    """The files of ``configs/d2`` by name, and by what a name says before the backbone.

    Of several backbones and schedules the short name means ResNet-50 and the shortest schedule.
    """
    files = sorted(CONFIGS.glob("*.py"), key=lambda path: ("_R_50" not in path.stem, path.stem))
    names = {path.stem: path for path in files}
    for path in files:
        names.setdefault(short_name(path.stem), path)
    return names


def short_name(name: str) -> str:
    """A config's name without backbone and schedule."""
    return _RECIPE.sub("", name).partition("_R_")[0]


def _system(path: Path, pages: dict[Path, str]) -> System:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    stem = _RECIPE.sub("", path.stem)
    page = next((p for p in sorted(pages) if stem in pages[p]), None)
    needs = "a CUDA device" if "dcn" in path.stem else ""  # Detectron2's deformable convolutions
    what = text.splitlines()[0] if text else ""
    return System(path.stem, _relative(path), what, needs, _relative(page.parent) if page else "")


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))
