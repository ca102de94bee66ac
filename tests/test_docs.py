"""The site builds without a warning, and what its pages show runs."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segroi.cli.main import main
from segroi.utils.digits import SceneSpec, make_digits

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# What a test adds to the commands of the pages, so that they take seconds.
TINY = {
    "train": "--iterations 2 --size 64 workers=0 model_args.backbone=mobilenet_v3_small "
    "model_args.norm=group model_args.channels=16 model_args.hidden=32 model_args.mask_convs=1 "
    "model_args.rois_per_image=16 model_args.proposals=[20,20] model_args.anchor_scale=4"
}


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[str]:
    lines = "".join(blocks(page, "bash")).replace("\\\n", "").splitlines()
    return [line for line in lines if line.startswith("segroi ")]


def test_site_builds_without_a_warning(tmp_path):
    for package in ("material", "mkdocstrings_handlers"):
        pytest.importorskip(package, reason="mkdocs is not installed (segroi[docs])")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    api = (tmp_path / "api.html").read_text()
    assert 'id="segroi.ops.multi_level_roi_align.multi_level_roi_align"' in api
    assert "canonical_level" in api, "signatures are there"
    assert "semantics-of-bad-inputs" in (tmp_path / "csrc" / "index.html").read_text()
    assert (tmp_path / "projects" / "GRoIE" / "index.html").exists()


@pytest.mark.parametrize("page", ["operators.md", "systems.md", "data.md"])
def test_python_examples(page):
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(block, names)
    wanted = {
        "operators.md": lambda: names["sums"].shape == (2, 16, 14, 14) and names["rois"].grad.any(),
        "systems.md": lambda: names["pooled"].shape == (1, 32, 7, 7),
        "data.md": lambda: names["counts"]["found"] == 1 and names["counts"]["missed"] == 0,
    }
    assert wanted[page]()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """The folder of somebody with annotations and photographs of their own."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("desk")
    spec = SceneSpec(size=(64, 64), digits=(1, 3), side=(20, 40))
    make_digits(folder, train=4, val=2, spec=spec)["images"].rename(folder / "photographs")
    threads, here = torch.get_num_threads(), Path.cwd()
    torch.set_num_threads(1)
    os.chdir(folder)
    yield folder
    os.chdir(here)
    torch.set_num_threads(threads)


def run_commands(page: str, slow: bool) -> None:
    """Run a page's commands; exports, which take most of a minute, are the slow ones."""
    assert commands(page)
    for line in commands(page):
        words = shlex.split(line)[1:]
        if "--workers" in words and importlib.util.find_spec("ray") is None:
            continue
        if slow == (words[0] == "export"):
            assert main([*words, *shlex.split(TINY.get(words[0], ""))]) == 0, line


@pytest.mark.parametrize("page", ["tour.md", "data.md", "reports.md", "scaling.md"])
def test_commands_of_the_pages(desk, page):
    """In the order of the pages: later ones use what the tour left."""
    run_commands(page, slow=False)
    if page == "tour.md":
        for name in ("run/report.html", "comparison/compare.html", "pictures"):
            assert (desk / name).exists(), name
    if page == "scaling.md":
        names: dict[str, object] = {}
        exec(blocks(page, "python")[0], names)
        files = [line["file"] for line in names["read_job"](desk / "job")]
        assert len(files) == len(set(files)) == 6 and names["objects"] >= 0


@pytest.mark.slow
def test_the_tour_ends_with_an_exported_file(desk):
    if not (desk / "run").exists():
        run_commands("tour.md", slow=False)
    run_commands("tour.md", slow=True)
    assert (desk / "model.pt2").stat().st_size > 1_000_000
