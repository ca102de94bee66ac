"""Subcommands that show, list and hand over: models, config, bench, verify, completion."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from segroi.cli import bench
from segroi.cli._completion import commands
from segroi.cli._config_files import plain
from segroi.cli._systems import ROOT, detectron2_systems, lazy_configs
from segroi.cli.main import main, subcommands

YACS = "configs/d2/mask_rcnn_groie_R_50_FPN_1x.yaml"
LAZY = "configs/d2/mask_rcnn_groie_R_50_FPN_1x.py"
TV = "configs/tv/mask_rcnn_groie_digits.yaml"


@pytest.fixture(autouse=True)
def checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def output(words, capsys, status=0):
    assert main(words) == status
    return capsys.readouterr().out


def said(words, capsys):
    assert main(words) == 2
    return capsys.readouterr().err.replace("\n", " ")


def test_models_of_both_hosts(capsys):
    rows = json.loads(output(["models", "--json"], capsys))
    assert set(rows) == {"torchvision", "detectron2"}
    comask = rows["detectron2"]["comask_R_50_FPN_2x"]
    assert comask["page"] == "projects/CoMask" and "parameters" not in comask
    assert rows["detectron2"]["htc_dcn_R_50_FPN_1x"]["needs"] == "a CUDA device"
    assert all((ROOT / system.config).is_file() for system in detectron2_systems())
    pages = {system.page for system in detectron2_systems()}
    assert pages == {str(p.relative_to(ROOT)) for p in ROOT.glob("projects/*")}
    assert "comask_R_50_FPN_2x" in output(["models"], capsys)


def test_short_names_mean_the_smallest_recipe():
    names = lazy_configs()
    assert names["comask"].stem == "comask_R_50_FPN_2x"
    assert names["mask_rcnn_groie"].stem == "mask_rcnn_groie_R_50_FPN_1x"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["models", "mask_rcn"], "did you mean mask_rcnn or"),
        (["models", "comsk"], "did you mean comask (--host d2)?"),
        (["models", "comask"], "is one of Detectron2: --host d2 trains comask_R_50_FPN_2x"),
        (["models", "zzz"], "known: faster_rcnn"),
        (["bench", "crop_and_resiz"], "unknown benchmark 'crop_and_resiz': did you mean crop_and"),
        (["completion", "bahs"], "unknown shell 'bahs': did you mean bash"),
        (["verify", "badinput"], "invalid choice: 'badinput'"),
        (["config", "show", "nowhere.yaml"], "config file nowhere.yaml does not exist"),
        (["config", "show", TV, "lr"], "'lr' is no KEY=VALUE"),
        (["config", "show", TV, "lrr=1"], "did you mean lr"),
        (["config", "show", TV, "--only", "modl"], "has no setting below 'modl'"),
    ],
)
def test_mistakes(words, text, capsys):
    assert text in said(words, capsys)


def test_config_of_torchvision(capsys):
    words = ["config", "show", TV, "lr=0.5", "model_args.channels=8", "--json"]
    shown = json.loads(output(words, capsys))
    assert shown["lr"] == 0.5 and shown["model_args.channels"] == 8
    assert shown["optimizer"] == "adamw" and shown["momentum"] == 0.9  # of the file, by default
    assert shown["model_args.detections"] == 30 and shown["model_args.norm"] == "batch"
    text = output(["config", "show", TV, "--only", "model_args"], capsys)
    assert text.splitlines()[0].startswith("model_args.") and "optimizer" not in text


def test_what_differs(capsys, tmp_path):
    other = tmp_path / "config.yaml"
    other.write_text((ROOT / TV).read_text().replace("lr: 0.001", "lr: 0.002"))
    rows = json.loads(output(["config", "diff", TV, str(tmp_path), "--json"], capsys, 1))
    assert rows == {"lr": ["0.001", "0.002"]}
    text = output(["config", "diff", TV, str(other)], capsys, 1)
    assert text.split() == ["lr", "-", "0.001", "+", "0.002"]
    assert "no difference" in output(["config", "diff", TV, TV], capsys)


@pytest.mark.d2
def test_configs_of_detectron2(capsys):
    pytest.importorskip("detectron2")
    words = ["config", "show", YACS, "MODEL.GROIE.PRE=none", "--json", "--only", "MODEL.GROIE"]
    shown = json.loads(output(words, capsys))
    assert shown["MODEL.GROIE.PRE"] == "none" and shown["MODEL.GROIE.AGGREGATION"] == "sum"
    words = ["config", "show", LAZY, "train.max_iter=7", "--json"]
    shown = json.loads(output(words, capsys))
    assert shown["train.max_iter"] == 7
    target = shown["model.roi_heads.mask_pooler.extractor._target_"]
    assert target.endswith("GRoIE")
    longer = LAZY.replace("1x", "3x")
    rows = json.loads(output(["config", "diff", LAZY, longer, "--json"], capsys, 1))
    assert rows["lr_multiplier.scheduler.num_updates"] == ["90000", "270000"]
    assert not any(name.startswith("model.") for name in rows)


@pytest.mark.d2
def test_a_lazy_config_from_elsewhere_is_not_run(capsys, tmp_path):
    pytest.importorskip("detectron2")
    (tmp_path / "config.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "--trust-config" in said(["config", "show", str(tmp_path / "config.py")], capsys)
    assert not (tmp_path / "ran").exists()


def test_plain_data():
    assert plain({"a": (1, None), 2: ROOT.__class__}) == {
        "a": [1, None],
        "2": f"{ROOT.__class__.__module__}.{ROOT.__class__.__qualname__}",
    }


def test_bench_hands_over(capsys, monkeypatch):
    assert "multi_level_roi_align" in output(["bench"], capsys).split()
    seen = []
    monkeypatch.setattr(
        bench.subprocess, "run", lambda command, check: seen.append(command) or subprocess
    )
    monkeypatch.setattr(subprocess, "returncode", 3, raising=False)
    words = ["bench", "multi_level_roi_align", "--threads", "1", "2", "--json", "x.json"]
    assert main(words) == 3
    assert seen[0][1].endswith("bench_multi_level_roi_align.py") and seen[0][2:] == words[2:]


def test_verify_runs_the_cases():
    # a process of its own, as for users: cases are forked, which threads that ran do not survive
    command = [sys.executable, "-m", "segroi.cli.main", "verify", "badinputs", "--every", "60"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cases on cpu; segroi:" in done.stdout and "BAD" not in done.stdout


def test_completion_knows_every_parser():
    known = {" ".join(command.words): command for command in commands()}
    assert set(subcommands()) <= set(known)
    assert {"data check", "data make", "config show", "verify badinputs"} <= set(known)
    assert known["train"].values["--host"][1] == ("tv", "d2")
    assert "--json" in known["models"].flags and "mask_rcnn" in known["train"].values["--model"][1]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes(capsys, tmp_path):
    script = tmp_path / "segroi.bash"
    script.write_text(output(["completion", "bash"], capsys))

    def complete(*words):
        program = f"source {script}; COMP_WORDS=(segroi {' '.join(words)}); "
        program += f"COMP_CWORD={len(words)}; _segroi; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
        assert not done.stderr
        return done.stdout.split()

    assert complete("tr") == ["train"]
    assert {"check", "make"} <= set(complete("data", "''"))
    assert complete("data", "check", "--qu") == ["--quick"]
    assert complete("train", "--host", "''") == ["tv", "d2"]
    assert complete("train", "--data", "''") == []  # the shell offers files


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(shell, capsys):
    text = output(["completion", shell], capsys)
    assert "export" in text and "--opset" in text.replace("-l opset", "--opset")
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True)
