from __future__ import annotations

import json

import pytest

from segroi.utils.project_results import record, record_runs
from segroi.utils.suggest import UsageError

TABLE = {"id": "speed", "title": "Speed", "metrics": ["GPU", "CPU"]}
ROWS = [{"name": name, "paper": [1.5, 2], "ours": None, "config": ""} for name in ("a", "b")]


@pytest.fixture
def results(tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"tables": [{**TABLE, "rows": ROWS}]}))
    return file


def test_only_the_named_row_is_filled(results):
    record(results, "speed", {"b": (None, 3.25)})
    rows = json.loads(results.read_text())["tables"][0]["rows"]
    assert rows[0] == ROWS[0]
    assert rows[1]["ours"]["values"] == [None, 3.25]
    assert rows[1]["ours"]["versions"].startswith("torch ") and rows[1]["ours"]["device"]


def test_means_have_their_spread(results):
    record(results, "speed", {"a": [1, 2], "b": [3, 4]}, {"a": [0.5, 0.25]})
    rows = json.loads(results.read_text())["tables"][0]["rows"]
    assert rows[0]["ours"]["spread"] == [0.5, 0.25] and "spread" not in rows[1]["ours"]


def test_lists_of_numbers_stay_on_one_line(results):
    record(results, "speed", {"a": [1, 2]})
    assert '"paper": [1.5, 2],' in results.read_text()


@pytest.mark.parametrize(("table", "row"), [("speed", "c"), ("accuracy", "a")])
def test_unknown_row_or_table(results, table, row):
    with pytest.raises(ValueError, match="has no (row|table)"):
        record(results, table, {row: [1, 2]})


@pytest.fixture
def runs(tmp_path):
    """Two runs of one commit and one of another."""
    folders = []
    for number, ap in enumerate((0.30, 0.34, 0.35)):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        made_by = {"commit": f"{number // 2}" * 40, "device": "CPU", "packages": {"torch": "2"}}
        (folder / "provenance.json").write_text(json.dumps(made_by))
        (folder / "evaluation.json").write_text(json.dumps({"box": {"AP": ap, "AP75": ap / 2}}))
        folders.append(folder)
    return folders


@pytest.fixture
def accuracy(tmp_path):
    file = tmp_path / "accuracy.json"
    table = {"id": "ap", "title": "A", "metrics": ["box AP", "box AP75", "mask AP"], "rows": ROWS}
    file.write_text(json.dumps({"tables": [table]}))
    return file


def test_mean_and_spread_of_runs(accuracy, runs):
    ours = record_runs(accuracy, "ap", "a", runs)
    assert ours["values"] == [33.0, 16.5, None]
    assert ours["spread"] == [2.6, 1.3, None] and ours["runs"] == 3
    assert ours["commit"] == f"{'0' * 10}, {'1' * 10}" and ours["device"] == "CPU"
    assert json.loads(accuracy.read_text())["tables"][0]["rows"][0]["ours"] == ours


def test_one_run_has_no_spread(accuracy, runs):
    ours = record_runs(accuracy, "ap", "b", runs[:1])
    assert ours["values"] == [30.0, 15.0, None] and "spread" not in ours


def test_a_run_that_was_not_evaluated(accuracy, runs):
    (runs[1] / "evaluation.json").unlink()
    before = accuracy.read_text()
    with pytest.raises(UsageError, match="run1 is no run"):
        record_runs(accuracy, "ap", "a", runs)
    assert accuracy.read_text() == before
