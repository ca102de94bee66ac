import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("project_tables")


@pytest.fixture
def project(tables, tmp_path, monkeypatch):
    """A repository with one project of one table."""
    folder = tmp_path / "projects" / "P"
    folder.mkdir(parents=True)
    (folder / "c.yaml").write_text("")
    row = {"name": "it", "paper": [36.5, None], "ours": None, "config": "projects/P/c.yaml"}
    table = {"id": "t", "title": "T", "metrics": ["AP", "AP50"], "rows": [row]}
    (folder / "README.md").write_text("above\n<!-- table: t -->\nold\n<!-- end -->\nbelow\n")
    monkeypatch.setattr(tables, "ROOT", tmp_path)

    def write(**changes):
        row.update(changes)
        (folder / "results.json").write_text(json.dumps({"tables": [table]}))
        return folder / "README.md"

    return write


def test_readmes_are_up_to_date(tables, capsys):
    assert tables.main(["--check"]) == 0, capsys.readouterr().out


def test_cells_that_were_not_run_stay_empty(tables, project):
    readme = project()
    assert tables.main(["--check"]) == 1 and "old" in readme.read_text()
    assert tables.main([]) == 0 and tables.main(["--check"]) == 0
    text = readme.read_text()
    assert text.startswith("above\n") and text.endswith("\nbelow\n") and "old" not in text
    assert "| it | 36.5 /  |  | [c.yaml](c.yaml) |  |  |" in text


def test_results_stand_beside_the_paper(tables, project):
    ours = {"values": [37.0, 59.1], "commit": "abc", "device": "H200", "versions": "torch 2.14"}
    readme = project(ours=ours)
    tables.main([])
    assert "| 37.0 / 59.1 | [c.yaml](c.yaml) | abc | H200, torch 2.14 |" in readme.read_text()


def test_spread_of_several_runs(tables, project):
    ours = {"values": [37.0, None], "spread": [0.4, None], "runs": 3, "commit": "abc"}
    readme = project(ours=ours)
    tables.main([])
    assert "| 37.0 ± 0.4 /  | [c.yaml](c.yaml) | abc |" in readme.read_text()


def test_a_config_that_does_not_exist_is_an_error(tables, project):
    project(config="projects/P/none.yaml")
    with pytest.raises(SystemExit, match="none.yaml does not exist"):
        tables.main([])


def test_a_table_without_a_place_is_an_error(tables, project):
    project().write_text("no table here\n")
    with pytest.raises(SystemExit, match="only one of README and results.json: {'t'}"):
        tables.main([])
