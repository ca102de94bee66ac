"""Configs of either host as plain data, with what they inherit."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segroi.utils.suggest import UsageError, existing_file


def read_config(path: str, settings: Sequence[str] = (), trust: bool = False) -> dict[str, Any]:
    """A config file, resolved, as plain data.

    Args:
        path: yaml or lazy config of either host, or the folder of a run.
        settings: "key=value", changes to it.
        trust: run a lazy config from outside the project.

    Raises:
        UsageError: the file is missing or no config, or needs Detectron2, which is not there.
    """
    bad = [word for word in settings if "=" not in word]
    if bad:
        raise UsageError(f"{bad[0]!r} is no KEY=VALUE")
    file = Path(path)
    file = existing_file(file / "config.yaml" if file.is_dir() else file, "config file")
    kind = "lazy" if file.suffix == ".py" else _kind_of_yaml(file)
    if kind == "torchvision":
        return _torchvision(file, settings)
    if importlib.util.find_spec("detectron2") is None:
        raise UsageError(f"{file} is a config of Detectron2, which is not installed: segroi doctor")
    return _lazy(file, settings, trust) if kind == "lazy" else _yacs(file, settings)


def _kind_of_yaml(file: Path) -> str:
    from segroi.utils.settings import load_plain_yaml

    content = load_plain_yaml(file)
    if not isinstance(content, dict):
        raise UsageError(f"config {file} holds no keys")
    if isinstance(content.get("model"), dict):
        return "lazy"
    upper = any(str(key).isupper() or key == "_BASE_" for key in content)
    return "yacs" if upper else "torchvision"


def _torchvision(file: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Every field, and every argument of the model's builder."""
    from omegaconf import OmegaConf

    from segroi.tv.config import load_config
    from segroi.tv.models import model_arguments

    changes = OmegaConf.to_container(OmegaConf.from_dotlist(list(settings)))
    values = load_config(file, **changes).to_dict()
    if values["model"]:
        values["model_args"] = {**model_arguments(values["model"]), **values["model_args"]}
    return plain(values)


def _yacs(file: Path, settings: Sequence[str]) -> dict[str, Any]:
    from segroi.d2 import load_config

    words = [part for setting in settings for part in setting.split("=", 1)]
    return plain(load_config(str(file), words))


def _lazy(file: Path, settings: Sequence[str], trust: bool) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from segroi.d2.trust import load_lazy_config

    config = load_lazy_config(file, trust)
    for setting in settings:
        key, _, value = setting.partition("=")
        typed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"]
        OmegaConf.update(config, key, typed)
    return plain(OmegaConf.to_container(config, resolve=True))


def plain(value: Any) -> Any:
    """Numbers, words, lists and dicts: a class or function becomes its dotted name."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)
