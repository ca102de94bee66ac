"""Detectron2's checkpoints: written whole, read without running what is in them."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from torch import nn

from segroi.utils.safe_files import (
    SAFETENSORS,
    UnreadableFile,
    atomic_write,
    check_sha256,
    read_weights,
)
from segroi.utils.suggest import UsageError

TRUST = "--trust-weights"
# All that the arrays of Detectron2's model zoo are pickled with.
_PLAIN = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with three differences.

    A file is written beside the old one and then takes its place. Nothing in a file is executed:
    ``.pth`` and ``.pyth`` are read by ``weights_only``, ``.pkl`` may hold arrays and plain data,
    ``.safetensors`` are read too. A resumed run whose last checkpoint is damaged goes on from the
    newest sound one.

    Args:
        model: as for Detectron2.
        save_dir: folder of the run.
        trust: read files that hold more than tensors and plain data, running what they ask for.
        sha256: of the weights that training starts from; "" for any.
        checkpointables: as for Detectron2.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        trust: bool = False,
        sha256: str = "",
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self.path_manager = _WholeFiles()
        self.trust = trust
        self.sha256 = sha256
        self._wanted = ""

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on from the newest sound checkpoint of the run, or load weights to start from."""
        if not (resume and self.has_checkpoint()):
            self._wanted = self.sha256
            try:
                return super().resume_or_load(path, resume=resume)
            finally:
                self._wanted = ""
        damaged = []
        for file in self._newest_first():
            try:
                return self.load(str(file))
            except UnreadableFile as error:
                self._parsed_url_during_load = None  # left over by the load that failed
                logging.getLogger(__name__).warning("%s; trying the one before", error)
                damaged.append(file.name)
        raise UsageError(
            f"{self.save_dir} has no checkpoint that can be read (tried {', '.join(damaged)}): "
            "start without --resume in another folder"
        )

    def _newest_first(self) -> Iterator[Path]:
        last = Path(self.get_checkpoint_file())
        yield last
        others = (Path(f) for f in self.get_all_checkpoint_files())
        # model_final.pth has the optimizer too, and is older if another one is the last.
        yield from sorted(
            (f for f in others if f != last), key=lambda f: f.stat().st_mtime, reverse=True
        )

    def _load_file(self, filename: str) -> dict[str, Any]:
        check_sha256(filename, self._wanted)
        if filename.endswith(".pkl") and not self.trust:
            check_pickle(filename)
        loaded = super()._load_file(filename)
        if filename.endswith(SAFETENSORS) and "state_dict" in loaded["model"]:
            loaded["model"] = loaded["model"]["state_dict"]
        return loaded

    def _torch_load(self, f: str) -> Any:
        if self.trust:
            return torch.load(f, map_location="cpu", weights_only=False)
        try:
            return read_weights(f)
        except UnreadableFile as error:
            hint = f"; if you trust it, use {TRUST}" if "more than tensors" in str(error) else ""
            raise UnreadableFile(f"{error}{hint}") from error


def check_pickle(path: str | Path) -> None:
    """Raise an UnreadableFile unless a pickle holds only arrays and plain data.

    A pickle is a program; this runs it with no function at hand but those that rebuild arrays.
    """
    try:
        with Path(path).open("rb") as file:
            _PlainUnpickler(file, encoding="latin1").load()
    except UnreadableFile:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise UnreadableFile(f"weights file {path} cannot be read: {error}") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN:
            raise UnreadableFile(
                f"a weights file asks for {module}.{name}: it wants more than tensors and plain "
                f"data; if you trust it, use {TRUST}"
            )
        return super().find_class(module, name)


class _WholeFiles:
    """Detectron2's path manager, whose written files appear when they are whole."""

    def __getattr__(self, name: str) -> Any:
        return getattr(PathManager, name)

    def open(self, path: str, mode: str = "r") -> AbstractContextManager[IO[Any]]:
        """Open a file; a local one that is written, as a draft."""
        if "w" in mode and "://" not in path:
            return atomic_write(path, mode)
        return PathManager.open(path, mode)
