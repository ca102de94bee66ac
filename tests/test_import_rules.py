"""The layers of the package: which part may import which, read from the source itself."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "segroi").rglob("*.py"))

CORE = {"ops", "layers", "modeling"}
# Parts of segroi that a part may import besides itself; cli puts everything together.
MAY_IMPORT = {
    "_extension": set(),
    "ops": {"_extension"},
    "layers": {"ops"},
    "modeling": {"ops", "layers"},
    "utils": {"_extension", *CORE},
    "verify": {"_extension", *CORE, "utils"},
    "d2": {*CORE, "utils"},
    "tv": {*CORE, "utils"},
    "cli": {"_extension", *CORE, "utils", "verify", "d2", "tv"},
}
CORE_MAY_USE = {"torch", "torchvision", *sys.stdlib_module_names}


def _part(path):
    return path.relative_to(ROOT / "segroi").parts[0].removesuffix(".py")


def _imports(path):
    """Absolute names of every module that a file imports, also inside its functions."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield module
            if module == "segroi":  # from segroi import ops
                yield from (f"segroi.{alias.name}" for alias in node.names)


def _segroi_parts(path):
    names = (name.split(".") for name in _imports(path))
    return {parts[1] for parts in names if parts[0] == "segroi" and len(parts) > 1}


def _foreign(path):
    return {name.split(".")[0] for name in _imports(path)} - {"segroi"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    part = _part(path)
    if part == "__init__":
        return
    assert part in MAY_IMPORT, f"{part} is no part that DESIGN knows: say here what it may import"
    known = _segroi_parts(path) & set(MAY_IMPORT)
    assert known <= MAY_IMPORT[part] | {part}


@pytest.mark.parametrize("part", sorted(CORE | {"_extension"}))
def test_the_core_needs_torch_and_torchvision_only(part):
    for path in FILES:
        if _part(path) == part:
            assert _foreign(path) <= CORE_MAY_USE, path.relative_to(ROOT)


def test_only_the_detectron2_host_imports_detectron2():
    hosts = {p for p in FILES if "detectron2" in _foreign(p)}
    strangers = {p.relative_to(ROOT) for p in hosts if _part(p) != "d2"}
    assert hosts and not strangers
    launchers = {p.name for p in ROOT.glob("scripts/*.py") if "detectron2" in _foreign(p)}
    assert launchers <= {"train_net.py", "lazyconfig_train_net.py"}


def test_configs_of_detectron2_stay_in_their_folders():
    allowed = ("configs/d2/", "configs/quick/", "projects/")
    for path in [*ROOT.glob("configs/**/*.py"), *ROOT.glob("projects/**/*.py")]:
        if {"detectron2", "fvcore"} & _foreign(path) or "d2" in _segroi_parts(path):
            assert str(path.relative_to(ROOT)).startswith(allowed), path


def test_a_forbidden_import_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "segroi" / "ops" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from segroi import tv\ndef f():\n    from ..d2 import y\n    import numpy as np\n"
    )
    assert _segroi_parts(path) == {"tv", "d2"}
    assert _foreign(path) == {"numpy"}
