"""Work over very many files in shards: each is done once and written whole, whoever is killed.

A job is a folder. ``files.txt`` and ``job.json`` say what is to be done and never change;
``parts/part-000012.jsonl`` appears, whole, when shard 12 is done. So a job that was stopped goes on
with the shards that have no part, and a shard that is done twice (its worker died after the work
and before its answer) leaves the same bytes. A shard is done in this process, or by workers of
Ray Data, which restarts what was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segroi.utils.safe_files import atomic_write
from segroi.utils.suggest import UsageError

MANIFEST = "job.json"
FILES = "files.txt"
PARTS = "parts"
FORMAT = "segroi-job-1"
_RETRIES = 3  # times that Ray gives a shard to another worker when its own has died

Worker = Callable[[Sequence[str]], Iterable[dict]]  # a line for each file, in their order


class Done(NamedTuple):
    """A shard that is done: its files, and how many of them have an "error"."""

    files: int
    errors: int


class ShardedJob:
    """The shards of a job and what is done of them.

    Args:
        folder: of the job; made where it is missing.
        files: what is to be done; must be the same each time that the job goes on.
        shard_size: files a shard.
        settings: whatever else the results depend on, as plain data.

    Raises:
        UsageError: the folder holds a job of other files or settings.
    """

    def __init__(
        self,
        folder: str | Path,
        files: Sequence[str],
        shard_size: int,
        settings: Mapping[str, Any],
    ) -> None:
        self.folder, self.files, self.shard_size = Path(folder), list(files), shard_size
        strange = next((f for f in self.files if "\n" in f), None)
        if strange is not None:
            raise UsageError(f"file name {strange!r} has a line break")
        text = "".join(f"{file}\n" for file in self.files)
        manifest = {
            "format": FORMAT,
            "files": len(self.files),
            "files_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "shard_size": shard_size,
            **settings,
        }
        (self.folder / PARTS).mkdir(parents=True, exist_ok=True)
        if (self.folder / MANIFEST).exists():
            self._check(manifest)
            return
        with atomic_write(self.folder / FILES, "w") as file:
            file.write(text)
        with atomic_write(self.folder / MANIFEST, "w") as file:
            json.dump(manifest, file, indent=2)

    def __len__(self) -> int:
        """Number of shards."""
        return -(-len(self.files) // self.shard_size)

    def shard(self, index: int) -> list[str]:
        """The files of a shard."""
        return self.files[index * self.shard_size : (index + 1) * self.shard_size]

    def part(self, index: int) -> Path:
        """Where the results of a shard are when it is done: a JSON line for each file."""
        return self.folder / PARTS / f"part-{index:06d}.jsonl"

    def pending(self, share: tuple[int, int] = (0, 1)) -> list[int]:
        """The shards that are not done.

        Args:
            share: (i, n): of every n shards the i-th, counted from 0.
        """
        return [i for i in range(share[0], len(self), share[1]) if not self.part(i).exists()]

    def lines(self) -> Iterator[dict]:
        """The results of every part that is there, in the order of the files."""
        for index in range(len(self)):
            if self.part(index).exists():
                with self.part(index).open() as part:
                    yield from map(json.loads, part)

    def _check(self, manifest: Mapping[str, Any]) -> None:
        there = json.loads((self.folder / MANIFEST).read_text())
        for key in {**there, **manifest}:
            if there.get(key) != manifest.get(key):
                raise UsageError(
                    f"{self.folder} holds another job: its {key} is {there.get(key)!r}, now it is "
                    f"{manifest.get(key)!r}. Use another --output, or remove the folder"
                )


def run_here(
    job: ShardedJob, shards: Sequence[int], make_worker: Callable[[], Worker]
) -> Iterator[Done]:
    """Do shards in this process; yields what was done, shard by shard."""
    worker = make_worker()
    for index in shards:
        yield write_part(job.part(index), job.shard(index), worker)


def run_on_ray(
    job: ShardedJob,
    shards: Sequence[int],
    make_worker: Callable[[], Worker],
    workers: int,
    gpus: float = 0.0,
) -> Iterator[Done]:
    """Do shards with workers of Ray Data; yields what was done, shard by shard, as they come.

    With ``RAY_ADDRESS`` set the workers run on that cluster, which must see the same file system.

    Args:
        job: whose shards.
        shards: their numbers.
        make_worker: what each worker calls once, to load the model.
        workers: number of processes.
        gpus: GPUs a worker, 0.5 lets two share one.

    Raises:
        UsageError: Ray is missing, or a shard killed its worker again and again.
    """
    ray = import_ray()
    rows = [{"part": str(job.part(i).resolve()), "files": job.shard(i)} for i in shards]
    with _cluster(ray, workers):
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _RayWorker,
            fn_constructor_args=(make_worker,),
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            num_cpus=1,
            num_gpus=gpus,
            max_restarts=-1,
            max_task_retries=_RETRIES,
        )
        try:
            for row in done.iter_rows():
                yield Done(row["files"], row["errors"])
        except ray.exceptions.RayError as error:
            raise UsageError(
                f"the workers gave up: {error}\n"
                "What is done is kept, and the same command goes on with the rest"
            ) from error


def write_part(part: str | Path, files: Sequence[str], worker: Worker) -> Done:
    """Do the files of a shard and write its part, whole or not at all."""
    lines = list(worker(files))
    with atomic_write(part, "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return Done(len(files), sum("error" in line for line in lines))


def import_ray() -> Any:
    """Ray with Ray Data, or a UsageError that says how to get it."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        fix = "python -m pip install 'segroi[batch]'"
        raise UsageError(f"several workers need Ray Data ({error}): {fix}") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


class _RayWorker:
    """An actor of Ray: keeps its model and does shard after shard."""

    def __init__(self, make_worker: Callable[[], Worker]) -> None:
        self.worker = make_worker()

    def __call__(self, row: dict) -> dict:
        return write_part(row["part"], row["files"], self.worker)._asdict()


@contextlib.contextmanager
def _cluster(ray: Any, workers: int) -> Iterator[None]:
    """The cluster of ``RAY_ADDRESS``, or one on this machine for as long as it takes."""
    local = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers + 1}
    ray.init(logging_level="error", log_to_driver=False, include_dashboard=False, **local)
    try:
        yield
    finally:
        ray.shutdown()
