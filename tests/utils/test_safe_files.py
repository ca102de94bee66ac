from __future__ import annotations

import json
import struct

import pytest
import torch

from segroi.utils.safe_files import (
    PathError,
    atomic_write,
    check_sha256,
    inside,
    read_weights,
    sha256,
    write_safetensors,
)
from segroi.utils.safe_yaml import read_yaml
from segroi.utils.suggest import UsageError


@pytest.mark.parametrize("name", ["a.png", "b/c.png", "./a.png", "b/../a.png", "..a.png", "a..b"])
def test_names_that_stay(name):
    assert inside("data/images", name).is_relative_to("data/images")


@pytest.mark.parametrize(
    "name",
    ["../a.png", "b/../../a.png", "/etc/passwd", "", ".", "..", "a\0.png", "..\\a.png", "b/../.."],
)
def test_names_that_leave(name, tmp_path):
    for folder in ("data/images", tmp_path, "."):
        with pytest.raises(PathError, match="leads out of the folder"):
            inside(folder, name)


def test_links_of_the_user_are_followed(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.png").touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "train").symlink_to(tmp_path / "store")
    assert inside(tmp_path / "images", "train/a.png").exists()
    # ".." is taken away before the link is followed: this is no file of the parent of "store".
    assert inside(tmp_path / "images", "train/../a.png") == tmp_path / "images" / "a.png"


def test_a_draft_replaces_or_vanishes(tmp_path):
    path, old = tmp_path / "a.txt", tmp_path / "old.txt"
    with atomic_write(path, "w") as file:
        file.write("one")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_text() == "one"
    with atomic_write(path, "w", previous=old) as file:
        file.write("two")
    assert (path.read_text(), old.read_text()) == ("two", "one")
    assert len(list(tmp_path.iterdir())) == 2


def test_digests(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"abc")
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(path) == wanted
    check_sha256(path, wanted.upper())
    check_sha256(path, "")
    with pytest.raises(UsageError, match="is not the file that was asked for"):
        check_sha256(path, "0" * 64)


def test_safetensors_there_and_back(tmp_path):
    pytest.importorskip("safetensors")
    half = torch.rand(3, 4).bfloat16().T
    tensors = {"a": half, "b": torch.arange(5), "shared": half}
    write_safetensors(tmp_path / "w.safetensors", tensors, {"iteration": 3, "names": ["ü"]})
    content = read_weights(tmp_path / "w.safetensors")
    assert content["iteration"] == 3 and content["names"] == ["ü"]
    for name, tensor in tensors.items():
        assert torch.equal(content["state_dict"][name], tensor)


def _header(entries, data=b"\0" * 8):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


F32 = {"dtype": "F32", "shape": [1]}
HOSTILE = {
    "huge header": struct.pack("<Q", 2**62) + b"{}",
    "cut": _header({"a": F32 | {"data_offsets": [0, 4]}}, b"\0"),
    "overlap": _header({k: F32 | {"data_offsets": [0, 4]} for k in "ab"}, b"\0" * 4),
    "beyond": _header({"a": F32 | {"data_offsets": [0, 4000]}}),
    "backwards": _header({"a": F32 | {"data_offsets": [4, 0]}}),
    "huge shape": _header({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]}}),
    "no json": _header("x"),
    "metadata": _header(
        {"__metadata__": {"segroi": "{"}, "a": F32 | {"data_offsets": [0, 4]}}, b"\0" * 4
    ),
    "empty": b"",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_safetensors(tmp_path, case):
    pytest.importorskip("safetensors")
    path = tmp_path / "w.safetensors"
    path.write_bytes(HOSTILE[case])
    with pytest.raises(UsageError, match="cannot be read"):
        read_weights(path)


def test_yaml_of_all_plain_kinds(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &x [1, 2.5, null, true]\nb: {<<: {c: 1}, d: *x}\n")
    assert read_yaml(path) == {"a": [1, 2.5, None, True], "b": {"c": 1, "d": [1, 2.5, None, True]}}
    path.write_text("")
    assert read_yaml(path) is None
    path.write_bytes(b"a: \xff")
    with pytest.raises(UsageError, match="no UTF-8"):
        read_yaml(path)
    path.write_text("[" * 5000)
    with pytest.raises(UsageError, match="no yaml|nested too deeply"):
        read_yaml(path)
