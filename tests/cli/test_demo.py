from __future__ import annotations

import pytest
import torch

from segroi.cli.main import main
from segroi.utils.run_report import read_evaluation

pytest.importorskip("sklearn")


@pytest.mark.slow
def test_demo_on_torchvision_runs_through(tmp_path, capsys):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    words = ["demo", "--host", "tv", "--images", "8", "--iterations", "2", "--no-speed"]
    assert main([*words, "--output", str(tmp_path)]) == 0
    torch.set_num_threads(threads)
    run = tmp_path / "run-tv"
    assert set(read_evaluation(run)) == set(read_evaluation(run / "before")) == {"box", "mask"}
    assert (run / "report.html").stat().st_size > 100_000
    assert "SSD-ISB beside it" in (run / "report.html").read_text()
    assert set(read_evaluation(tmp_path / "run-ssd-isb")) == {"box", "mask"}
    assert len(list((tmp_path / "compare" / "pictures").glob("*.png"))) == 4
    assert "mask AP" in capsys.readouterr().out


def test_demo_refuses_a_host_that_is_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("segroi.cli._detectron2.importlib.util.find_spec", lambda _: None)
    words = ["demo", "--host", "d2", "--images", "2", "--output", str(tmp_path)]
    assert main(words) == 2
    assert "needs Detectron2: segroi doctor tells" in capsys.readouterr().err.replace("\n", " ")
