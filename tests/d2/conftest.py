"""Detectron2 is optional: without it one test of this folder is left, which says so."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

if importlib.util.find_spec("detectron2") is None:
    collect_ignore_glob = ["test_d2_*.py"]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a few digit scenes in COCO format: train.json, val.json, images."""
    from segroi.utils.digits import SceneSpec, make_digits

    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder, train=4, val=2, spec=SceneSpec(size=(96, 96), side=(24.0, 48.0)))
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[2]
