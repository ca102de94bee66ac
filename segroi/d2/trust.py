"""Configs of Detectron2 that are read, and those that are run.

A lazy config is a Python program: one of the project, or of Detectron2's model zoo, is run; any
other only on ``--trust-config``. Yaml is data. What a yaml file of a lazy config asks to be built
must be a part of a model, a loader, an optimizer or an evaluator.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from detectron2 import model_zoo
from detectron2.config import LazyConfig
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from segroi.utils.safe_yaml import read_yaml
from segroi.utils.suggest import UsageError, existing_file

TRUST = "--trust-config"
_ROOT = Path(__file__).resolve().parents[2]
_ZOO = Path(model_zoo.__file__).resolve().parent / "configs"
_FOLDERS = (_ROOT / "configs", _ROOT / "projects", _ZOO)
# Modules whose classes and functions a yaml file may name as a _target_.
_HOST = "backbones data evaluation gc_net meta_arch necks poolers roi_heads semantic solver"
_PARTS = "data evaluation layers modeling solver structures"
_MODULES = (
    *(f"segroi.{part}" for part in ("layers", "modeling", "ops", "utils.optim")),
    *(f"segroi.d2.{part}" for part in _HOST.split()),
    *(f"detectron2.{part}" for part in _PARTS.split()),
    *("torch.nn", "torch.optim", "torchvision.ops", "torchvision.models", "fvcore.nn"),
    *("fvcore.common.param_scheduler", "segroi.d2.SegroiPooler"),
)


class _LazyLoader(yaml.SafeLoader):
    """Plain yaml and the tags that ``LazyConfig.save`` writes."""


def load_lazy_config(path: str | Path, trust: bool = False) -> DictConfig:
    """Read a lazy config, a Python or a yaml file.

    Args:
        path: the file.
        trust: run a Python file from anywhere, and build whatever a yaml file names.

    Raises:
        UsageError: the file is missing, or would run code that is not trusted.
    """
    path = existing_file(path, "config file")
    if path.suffix == ".py":
        if not trust and not _is_ours(path):
            raise UsageError(
                f"config {path} is a Python program from outside the project. Read it, and if you "
                f"trust it, run it with {TRUST}"
            )
        return LazyConfig.load(str(path))
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"config {path} must be a .py or .yaml file")
    if trust:
        return LazyConfig.load(str(path))
    content = read_yaml(path, _LazyLoader)
    for target in _targets(content):
        known_part(target, str(path))
    return OmegaConf.create(content, flags={"allow_objects": True})


def known_part(name: object, where: str) -> Any:
    """The class or function of that dotted name, if a config may build it.

    Raises:
        UsageError: it lies outside of the modules that models are made of.
    """
    refused = f"{where}: {name!r} is no part of a model that a yaml file may name"
    if not isinstance(name, str) or "$" in name or not _is_known(name):
        raise UsageError(f"{refused}; if you trust the file, use {TRUST}")
    try:
        found = locate(name)
    except Exception as error:  # whatever importing it raises
        raise UsageError(f"{where}: there is no {name}") from error
    # "detectron2.layers.os.system" lies in os, whatever its name begins with.
    if not _is_known(str(getattr(found, "__module__", None))):
        raise UsageError(f"{refused}; if you trust the file, use {TRUST}")
    return found


def _is_ours(path: Path) -> bool:
    return any(path.resolve().is_relative_to(folder) for folder in _FOLDERS)


def _is_known(name: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in _MODULES)


def _targets(content: Any) -> Iterator[object]:
    """Every _target_ of a config."""
    if isinstance(content, dict):
        if "_target_" in content:
            yield content["_target_"]
        for value in content.values():
            yield from _targets(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _targets(value)


def _shape_spec(loader: yaml.SafeLoader, node: yaml.Node) -> ShapeSpec:
    return ShapeSpec(**loader.construct_mapping(node, deep=True))


def _name(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    mark = node.start_mark
    return known_part(suffix, f"line {mark.line + 1}")


def _tuple(loader: yaml.SafeLoader, node: yaml.Node) -> list:
    return loader.construct_sequence(node, deep=True)


_PYTHON = "tag:yaml.org,2002:python/"
_LazyLoader.add_constructor(f"{_PYTHON}object:{ShapeSpec.__module__}.ShapeSpec", _shape_spec)
_LazyLoader.add_constructor(f"{_PYTHON}tuple", _tuple)
_LazyLoader.add_multi_constructor(f"{_PYTHON}name:", _name)
