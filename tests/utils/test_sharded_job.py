"""Jobs in shards: what is killed is done again, what is done is left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest

from segroi.utils.sharded_job import MANIFEST, ShardedJob, run_here, run_on_ray
from segroi.utils.suggest import UsageError

FILES = [f"{number}.png" for number in range(10)]


def echo(files):
    for file in files:
        yield {"file": file, "number": int(file.split(".")[0])} | (
            {"error": "bad"} if file == "3.png" else {}
        )


def broken(files):
    yield {"file": files[0]}
    raise RuntimeError("the model fell over")


def test_shards_are_written_and_read_in_order(tmp_path):
    job = ShardedJob(tmp_path, FILES, 4, {"weights": "w"})
    assert len(job) == 3 and job.pending() == [0, 1, 2] and job.shard(2) == ["8.png", "9.png"]
    done = list(run_here(job, job.pending(), lambda: echo))
    assert done == [(4, 1), (4, 0), (2, 0)]
    assert [line["number"] for line in job.lines()] == list(range(10))
    assert job.pending() == [] and len(list((tmp_path / "parts").iterdir())) == 3


def test_a_worker_that_fails_leaves_no_part(tmp_path):
    job = ShardedJob(tmp_path, FILES, 4, {})
    with pytest.raises(RuntimeError, match="fell over"):
        list(run_here(job, [1], lambda: broken))
    assert list((tmp_path / "parts").iterdir()) == [] and list(job.lines()) == []


def test_shares_divide_the_shards(tmp_path):
    job = ShardedJob(tmp_path, FILES, 1, {})
    shares = [job.pending((i, 3)) for i in range(3)]
    assert sorted(sum(shares, [])) == list(range(10)) and shares[1] == [1, 4, 7]


@pytest.mark.parametrize(
    ("files", "size", "settings", "said"),
    [
        (FILES[1:], 4, {"w": 1}, "its files is 10, now it is 9"),
        (FILES[::-1], 4, {"w": 1}, "its files_sha256 is"),
        (FILES, 5, {"w": 1}, "its shard_size is 4, now it is 5"),
        (FILES, 4, {"w": 2}, "its w is 1, now it is 2"),
        (FILES, 4, {}, "its w is 1, now it is None"),
    ],
)
def test_another_job_in_the_same_folder_is_refused(tmp_path, files, size, settings, said):
    ShardedJob(tmp_path, FILES, 4, {"w": 1})
    before = (tmp_path / MANIFEST).read_text()
    with pytest.raises(UsageError, match=said):
        ShardedJob(tmp_path, files, size, settings)
    ShardedJob(tmp_path, FILES, 4, {"w": 1})
    assert (tmp_path / MANIFEST).read_text() == before


def test_sigkill_in_the_middle_of_a_shard(tmp_path):
    """The shards before it stay as they are; the killed one is done from its beginning."""
    script = textwrap.dedent(f"""
        import sys, time
        sys.path[:0] = [{str(Path(__file__).parent)!r}]
        from test_sharded_job import FILES, echo
        from segroi.utils.sharded_job import ShardedJob, run_here
        def slow(files):
            for line in echo(files):
                if line["number"] == 5:
                    print("five", flush=True)
                    time.sleep(600)
                yield line
        job = ShardedJob({str(tmp_path)!r}, FILES, 4, {{}})
        list(run_here(job, job.pending(), lambda: slow))
    """)
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "five\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    job = ShardedJob(tmp_path, FILES, 4, {})
    assert job.pending() == [1, 2]
    first = job.part(0).stat().st_mtime_ns
    list(run_here(job, job.pending(), lambda: echo))
    assert [line["number"] for line in job.lines()] == list(range(10))
    assert job.part(0).stat().st_mtime_ns == first


def test_workers_without_ray_are_told_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    job = ShardedJob(tmp_path, FILES, 4, {})
    with pytest.raises(UsageError, match=r"pip install 'segroi\[batch\]'"):
        list(run_on_ray(job, job.pending(), lambda: echo, workers=2))


def slow_worker(folder):
    """Says which process begins which shard, and takes its time."""

    def work(files):
        (Path(folder) / f"{os.getpid()}-{files[0]}").touch()
        for line in echo(files):
            time.sleep(0.1)
            yield line

    return work


def test_ray_goes_on_when_a_worker_is_killed(tmp_path, monkeypatch):
    pytest.importorskip("ray.data", reason="Ray Data is not installed (segroi[batch])")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find slow_worker
    begun, files = tmp_path / "begun", [f"{number}.png" for number in range(24)]
    begun.mkdir()
    job = ShardedJob(tmp_path / "job", files, 3, {})
    killed, done = None, []
    for item in run_on_ray(job, job.pending(), partial(slow_worker, begun), workers=2):
        done.append(item)
        if killed is None:  # while it is in the middle of its next shard
            newest = max(begun.iterdir(), key=lambda path: path.stat().st_mtime_ns)
            killed = int(newest.name.split("-")[0])
            os.kill(killed, signal.SIGKILL)
    assert sum(item.files for item in done) == 24 and len(done) == len(job) == 8
    pids = {path.name.split("-")[0] for path in begun.iterdir()}
    assert len(pids) == 3, "two workers, and one more in the place of the killed"
    alone = ShardedJob(tmp_path / "alone", files, 3, {})
    list(run_here(alone, alone.pending(), lambda: echo))
    for index in range(8):
        assert job.part(index).read_bytes() == alone.part(index).read_bytes()
    assert json.loads((tmp_path / "job" / MANIFEST).read_text())["files"] == 24
    assert len(list((tmp_path / "job" / "parts").glob("*.jsonl"))) == 8
