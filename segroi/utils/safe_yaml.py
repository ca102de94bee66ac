"""Yaml as plain data: no tag of a file runs code, and no file of a few lines fills the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from segroi.utils.suggest import UsageError, existing_file

MOST = 1_000_000  # values of a file, each alias counted as what it stands for


def read_yaml(path: str | Path, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Read a yaml file.

    Args:
        path: the file.
        loader: ``yaml.SafeLoader``, or a subclass that knows more tags.

    Raises:
        UsageError: the file is missing, no yaml, too large when its aliases are written out, or
            has a tag that would build Python objects; the text names tag and line.
    """
    path = existing_file(path, "config file")
    reader = None
    try:
        reader = loader(path.read_text(encoding="utf-8-sig"))
        node = reader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST:
            raise UsageError(f"config {path}: its aliases stand for more than {MOST} values")
        return reader.construct_document(node)
    except yaml.constructor.ConstructorError as error:
        raise UsageError(f"config {path}: {_tag_text(error)}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"config {path} is no yaml: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"config {path} is no yaml: it is no UTF-8 text") from error
    except RecursionError as error:
        raise UsageError(f"config {path} is nested too deeply, or holds itself") from error
    finally:
        if reader is not None:
            reader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node, aliases written out."""
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def _tag_text(error: yaml.constructor.ConstructorError) -> str:
    mark = error.problem_mark
    line = f"line {mark.line + 1}: " if mark else ""
    problem = (error.problem or "").replace("tag:yaml.org,2002:", "!!")
    if "python/" in problem:
        return f"{line}{problem}: such a tag runs code, and plain data is wanted"
    return f"{line}{problem}"
