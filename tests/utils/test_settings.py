from __future__ import annotations

import pytest

from segroi.utils.settings import flatten, load_plain_yaml, settings_difference
from segroi.utils.suggest import UsageError


def test_leaves_have_dotted_names():
    tree = {"a": {"b": [1, 2], "c": {}}, "d": [{"e": None}, 5], "f": "x"}
    assert flatten(tree) == {"a.b": [1, 2], "a.c": {}, "d.0.e": None, "d.1": 5, "f": "x"}


def test_difference_tells_both_values_and_what_is_missing():
    one, two = {"lr": 0.1, "same": (1, 2), "old": True}, {"lr": 0.2, "same": (1, 2), "new": None}
    assert settings_difference(one, two) == [
        ("lr", "0.1", "0.2"),
        ("new", None, "None"),
        ("old", "True", None),
    ]
    assert settings_difference(one, dict(one)) == []


def test_tags_of_python_are_data(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "config.yaml"
    path.write_text(
        "sizes: !!python/tuple [1, 2]\n"
        "cls: !!python/name:segroi.x ''\n"
        f"bad: !!python/object/apply:os.system ['touch {canary}']\n"
    )
    loaded = load_plain_yaml(path)
    assert loaded["sizes"] == [1, 2] and "segroi.x" in loaded["cls"]
    assert loaded["bad"] == [f"touch {canary}"] and not canary.exists()
    path.write_text("a: [")
    with pytest.raises(UsageError, match="is no yaml"):
        load_plain_yaml(path)
