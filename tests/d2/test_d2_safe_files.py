"""Nothing that a config or a weights file holds is run: the canary of each test stays absent."""

from __future__ import annotations

import collections
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from torch import nn

from segroi.d2 import load_config
from segroi.d2.checkpoint import SafeCheckpointer
from segroi.d2.data import register_coco_json
from segroi.d2.trust import known_part, load_lazy_config
from segroi.utils.suggest import UsageError


@pytest.fixture(autouse=True)
def canary(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "a file was executed"


class Evil:
    def __reduce__(self):
        return os.system, ("touch canary",)


YAML = {
    "apply": ("MODEL: !!python/object/apply:os.system ['touch canary']", "line 1: .*os.system"),
    "new": ("A:\n  B: !!python/object/new:os.system ['touch canary']", "line 2: "),
    "name": ("MODEL: !!python/name:os.system", "runs code"),
    "module": ("MODEL: !!python/module:antigravity", "runs code"),
    "base": ("_BASE_: evil.yaml", "evil.yaml: line 1"),
    "itself": ("_BASE_: config.yaml", "leads back to it"),
    "address": ("_BASE_: https://example.invalid/base.yaml", "download it first"),
    "missing": ("_BASE_: evill.yaml", "did you mean .*evil.yaml"),
    "laughs": (
        "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
        "stand for more than",
    ),
    "loop": ("a: &a [*a]", "holds itself"),
    "text": ("MODEL: [", "is no yaml"),
    "list": ("- 1", "holds no keys"),
}


@pytest.mark.parametrize("case", YAML)
def test_yaml_is_data(tmp_path, case):
    text, told = YAML[case]
    (tmp_path / "evil.yaml").write_text(YAML["apply"][0])
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UsageError, match=told):
        load_config("config.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:os.system ['touch canary']",
        "model: !!python/name:os.system",
        "model: {_target_: os.system, command: touch canary}",
        "model: {_target_: subprocess.check_call, args: [touch, canary]}",
        "model: {_target_: detectron2.layers.wrappers.torch.hub.load, repo_or_dir: x}",
        "model: {_target_: segroi.d2.trust.load_lazy_config, path: evil.py, trust: true}",
        "model: {_target_: segroi.d2.data.os.system, command: touch canary}",
        "model: {_target_: detectron2.config.LazyConfig.load, filename: evil.py}",
        "model: {_target_: '${name}'}\nname: os.system",
        "model: {a: [{b: {_target_: builtins.exec}}]}",
        "model: {_target_: {_target_: torch.nn.ReLU}}",
    ],
)
def test_a_lazy_yaml_builds_parts_of_models_only(tmp_path, text):
    (tmp_path / "evil.py").write_text("import os; os.system('touch canary')")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UsageError, match="config.yaml|line 1"):
        instantiate(load_lazy_config("config.yaml").model)


def test_python_is_run_from_the_project_or_on_trust(tmp_path, root):
    assert load_lazy_config(root / "configs/quick/mask_rcnn_groie_digits.py").train.max_iter
    (tmp_path / "config.py").write_text("import os\nos.system('touch canary')\nmodel = {'a': 1}")
    for path in ("config.py", root / "configs" / ".." / ".." / tmp_path.relative_to("/")):
        with pytest.raises(UsageError):
            load_lazy_config(path)
    (tmp_path / "link.py").symlink_to(tmp_path / "config.py")
    with pytest.raises(UsageError, match="--trust-config"):
        load_lazy_config("link.py")
    (tmp_path / "config.py").write_text("open('trusted', 'w')\nmodel = {'a': 1}")
    assert load_lazy_config("config.py", trust=True).model.a == 1
    assert (tmp_path / "trusted").exists()


def test_the_launcher_refuses_a_program_from_elsewhere(tmp_path, root):
    (tmp_path / "config.py").write_text("import os; os.system('touch canary')")
    command = [sys.executable, str(root / "scripts" / "lazyconfig_train_net.py")]
    done = subprocess.run(
        [*command, "--config-file", "config.py", "--num-gpus", "0"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 1 and "--trust-config" in done.stderr
    assert "Traceback" not in done.stderr


CONFIGS = ["mask_rcnn_groie", "mask_rcnn_gc_groie", "htc_dcn", "sbr_cnn", "comask"]


@pytest.mark.parametrize("name", CONFIGS)
def test_what_launchers_save_is_read_back(root, tmp_path, name):
    (path,) = (root / "configs/d2").glob(f"{name}_R_50_FPN_[12]x.py")
    cfg = load_lazy_config(path)
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = load_lazy_config("config.yaml")
    with torch.device("meta"):
        ours, theirs = instantiate(again.model), instantiate(cfg.model)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "torch.load",
        "torch.nn.nothing",
        "detectron2",
        "torch.nn.functional.warnings.warn",
    ],
)
def test_other_names_are_no_parts(name):
    with pytest.raises(UsageError):
        known_part(name, "config")
    assert known_part("torch.nn.Linear", "config") is nn.Linear


def _layer() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(collections.OrderedDict(conv=nn.Conv2d(1, 2, 3)))


@pytest.mark.parametrize("name", ["evil.pth", "evil.pkl", "evil.pyth"])
def test_weights_are_data(name):
    if name.endswith(".pkl"):
        Path(name).write_bytes(pickle.dumps({"model": Evil(), "__author__": "x"}))
    else:
        torch.save({"model": Evil(), "model_state": Evil()}, name)
    with pytest.raises((UsageError, pickle.UnpicklingError)):
        SafeCheckpointer(_layer()).load(name)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_the_pickles_of_the_model_zoo_are_read(protocol):
    wanted = {n: v.numpy() for n, v in _layer().state_dict().items()}
    content = {"model": wanted, "__author__": "zoo", "scale": np.float32(2)}
    Path("zoo.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    model = nn.Sequential(collections.OrderedDict(conv=nn.Conv2d(1, 2, 3)))
    SafeCheckpointer(model).load("zoo.pkl")
    assert torch.equal(model.conv.weight, torch.from_numpy(wanted["conv.weight"]))


def test_trust_reads_what_else_there_is():
    torch.save({"model": _layer().state_dict(), "author": Path("x")}, "odd.pth")
    with pytest.raises(UsageError, match="--trust-weights"):
        SafeCheckpointer(_layer()).load("odd.pth")
    SafeCheckpointer(_layer(), trust=True).load("odd.pth")


def test_safetensors_are_read():
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(_layer().state_dict(), "weights.safetensors")
    model = nn.Sequential(collections.OrderedDict(conv=nn.Conv2d(1, 2, 3)))
    SafeCheckpointer(model).load("weights.safetensors")
    assert torch.equal(model.conv.weight, _layer().conv.weight)


def test_the_digest_of_weights():
    torch.save(_layer().state_dict(), "weights.pth")
    digest = hashlib.sha256(Path("weights.pth").read_bytes()).hexdigest()
    SafeCheckpointer(_layer(), sha256=digest.upper()).resume_or_load("weights.pth", resume=False)
    with pytest.raises(UsageError, match=f"its SHA-256 is {digest}"):
        SafeCheckpointer(_layer(), sha256="0" * 64).resume_or_load("weights.pth", resume=False)


def test_images_stay_in_their_folder(digits, tmp_path):
    text = (digits / "val.json").read_text()
    name = sorted(p.name for p in (digits / "images").glob("val*"))[0]
    (tmp_path / "data.json").write_text(text.replace(name, f"../images/../../{name}"))
    from detectron2.data import DatasetCatalog

    dataset = register_coco_json(str(tmp_path / "data.json"), str(digits / "images"))
    with pytest.raises(UsageError, match="leads out of the folder"):
        DatasetCatalog.get(dataset)
