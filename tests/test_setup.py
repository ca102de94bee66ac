"""What setup.py decides about the extension, and that an isolated build is a whole package."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[1]
CHOICES = ("SEGROI_CUDA", "SEGROI_EXTENSION", "SEGROI_SANITIZE", "CXX", "CUDA_HOME", "CUDA_PATH")


@pytest.fixture
def build(monkeypatch):
    """Run setup.py with a ``setup`` that only notes its arguments."""
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    monkeypatch.chdir(ROOT)
    for name in CHOICES:
        monkeypatch.delenv(name, raising=False)

    def run(**choices):
        for name, value in choices.items():
            monkeypatch.setenv(name, value)
        runpy.run_path(str(ROOT / "setup.py"))
        return given["ext_modules"]

    return run


def test_cpu_build_compiles_every_cpu_kernel_and_says_so_to_cuda_tensors(build):
    operators, bindings = build(SEGROI_CUDA="0")
    assert (operators.name, bindings.name) == ("segroi._ops", "segroi._C")
    sources = set(operators.sources)
    assert {f"csrc/cpu/{p.name}" for p in (ROOT / "csrc" / "cpu").glob("*.cpp")} <= sources
    assert "csrc/cpu_only.cpp" in sources and not [s for s in sources if "csrc/cuda/" in s]


def test_only_the_bindings_know_python(build):
    operators, bindings = build(SEGROI_CUDA="0")
    assert operators.py_limited_api and "torch_python" not in operators.libraries
    assert bindings.sources == ["csrc/bindings.cpp"]
    includes = {p for p in (ROOT / "csrc").rglob("*.*") if "torch/extension.h>" in p.read_text()}
    assert includes == {ROOT / "csrc/bindings.cpp"}


def test_no_compiler_no_extension_one_warning(build, capfd):
    assert build(CXX="a-compiler-that-is-nowhere") == []
    warnings = capfd.readouterr().err.strip().splitlines()
    assert len(warnings) == 1 and "no C++ compiler found" in warnings[0]
    assert "install g++ or set CXX" in warnings[0]


def test_no_torch_no_extension_one_warning(build, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # what an isolated build sees
    assert build() == []
    warnings = capfd.readouterr().err.strip().splitlines()
    assert len(warnings) == 1 and "--no-build-isolation" in warnings[0]


def test_the_extension_can_be_declined(build, capfd):
    assert build(SEGROI_EXTENSION="0") == [] and capfd.readouterr().err == ""


def test_cuda_that_was_asked_for_must_be_there(build, monkeypatch):
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(SystemExit, match="SEGROI_CUDA=1 needs nvcc"):
        build(SEGROI_CUDA="1")
    with pytest.raises(SystemExit, match="must be auto, 0 or 1, got 'yes'"):
        build(SEGROI_CUDA="yes")


USES_IT = """
import sys, warnings
# an editable installation of the checkout would lend its extension
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import segroi, torch
    from segroi.ops import MultiLevelRoIAlign, multi_level_roi_align
    rois = torch.tensor([[0, 1.0, 1.0, 9.0, 9.0]])
    out = multi_level_roi_align([torch.ones(1, 2, 8, 8)], rois, 2, [0.5])
    multi_level_roi_align([torch.ones(1, 2, 8, 8)], rois, 2, [0.5])
ours = [str(w.message) for w in caught if "segroi" in str(w.message)]
assert len(ours) == 1 and "plain-PyTorch" in ours[0] and "segroi doctor" in ours[0], ours
assert out.tolist() == [[[[1.0, 1.0], [1.0, 1.0]]] * 2]
assert not segroi.build_info()["built"]
import segroi.cli.compare, segroi.tv.models
print(segroi.__file__)
"""


@pytest.mark.slow
def test_wheel_without_a_compiler_works_from_anywhere(tmp_path):
    """A copy of the sources, so that nothing of the checkout is written or imported."""
    pytest.importorskip("wheel")
    source = tmp_path / "source"
    source.mkdir()
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--", "segroi", "csrc", "setup.py", "pyproject.toml"]
        + ["README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    if tracked == [""]:
        pytest.skip("no checkout")
    for name in filter(None, tracked):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--no-index", "-w", str(tmp_path / "dist"), "."]
    environment = {**os.environ, "CXX": "a-compiler-that-is-nowhere"}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert not [name for name in names if name.startswith(("tests/", "docs/", "csrc/"))]
    assert [name for name in names if name.endswith("entry_points.txt")]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    environment.pop("SEGROI_REFERENCE", None)
    used = [sys.executable, "-c", USES_IT]
    done = subprocess.run(used, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "site" / "segroi" / "__init__.py")
