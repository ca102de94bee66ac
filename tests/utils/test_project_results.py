from __future__ import annotations

import json

import pytest

from segroi.utils.project_results import record

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


def test_lists_of_numbers_stay_on_one_line(results):
    record(results, "speed", {"a": [1, 2]})
    assert '"paper": [1.5, 2],' in results.read_text()


@pytest.mark.parametrize(("table", "row"), [("speed", "c"), ("accuracy", "a")])
def test_unknown_row_or_table(results, table, row):
    with pytest.raises(ValueError, match="has no row"):
        record(results, table, {row: [1, 2]})
