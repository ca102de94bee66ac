"""The settings of runs as flat tables: what differs between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from segroi.utils.safe_yaml import read_yaml


def settings_difference(
    first: Mapping[str, object], second: Mapping[str, object]
) -> list[tuple[str, str | None, str | None]]:
    """Names of settings with both values, where they differ; None where a run has no such one."""
    rows = []
    for key in sorted({*first, *second}):
        one, two = (str(run[key]) if key in run else None for run in (first, second))
        if one != two:
            rows.append((key, one, two))
    return rows


def flatten(tree: object, prefix: str = "") -> dict[str, object]:
    """The leaves of nested dicts by their dotted names; lists count as leaves unless of dicts."""
    if isinstance(tree, Mapping) and tree:
        pairs = tree.items()
    elif isinstance(tree, list) and any(isinstance(item, Mapping) for item in tree):
        pairs = enumerate(tree)
    else:
        return {prefix: tree}
    leaves: dict[str, object] = {}
    for key, value in pairs:
        leaves |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


class _PlainLoader(yaml.SafeLoader):
    """Reads what Detectron2 writes about tuples and callables as plain data; runs nothing."""


def _plain(loader: _PlainLoader, suffix: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return f"{suffix} {node.value}".strip()


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _plain)


def load_plain_yaml(path: Path) -> object:
    """Read a run's config of either host; no code in it is run."""
    return read_yaml(path, _PlainLoader)
