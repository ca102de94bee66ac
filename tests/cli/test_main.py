from __future__ import annotations

import argparse
import importlib

import pytest

import segroi
from segroi.cli.main import main, subcommands


def test_every_subcommand_has_help_and_the_two_functions():
    for name, text in subcommands().items():
        module = importlib.import_module(f"segroi.cli.{name.replace('-', '_')}")
        assert text.endswith("."), f"{name} has no one-line docstring"
        assert callable(module.add_arguments) and callable(module.run)


# What prints no result: the benchmark's own option, a shell's script, a report, a page.
WITHOUT_JSON = {"bench", "completion", "demo", "serve"}


@pytest.mark.parametrize("name", sorted(set(subcommands()) - WITHOUT_JSON))
def test_every_result_can_be_had_as_json(name):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"segroi.cli.{name.replace('-', '_')}").add_arguments(parser)
    parsers = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers += action.choices.values()
    assert any("--json" in p._option_string_actions for p in parsers)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"segroi {segroi.__version__}"


def test_help_lists_the_subcommands(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in subcommands())
    assert main([]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["docto"], "unknown subcommand 'docto': did you mean doctor?"),
        (["zzz"], "known: "),
        (["doctor", "--jsn"], "unknown option '--jsn': did you mean --json"),
        (["data", "make", "digits", "--outptu", "x"], "did you mean --output"),
        (
            ["data", "make", "digit", "--output", "x"],
            "unknown data set 'digit': did you mean digits",
        ),
        (["data", "make", "digits"], "the following arguments are required: --output"),
        (["data", "make", "digits", "--output", "x", "--size", "9"], "--size must be at least 64"),
    ],
)
def test_mistakes_are_told_without_a_traceback(words, said, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error.replace("\n", " ") and "Traceback" not in error


def test_data_make_digits(tmp_path, capsys):
    pytest.importorskip("sklearn")
    words = ["data", "make", "digits", "--output", str(tmp_path), "--train", "2", "--val", "1"]
    assert main([*words, "--size", "64"]) == 0
    assert (tmp_path / "train.json").exists() and (tmp_path / "val.json").exists()
    assert len(list((tmp_path / "images").glob("*.png"))) == 3
    assert str(tmp_path / "train.json") in capsys.readouterr().out
