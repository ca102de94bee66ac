"""What lets a launcher's run be stopped and gone on with."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from segroi.d2.postmortem import postmortem
from segroi.utils.provenance import write_provenance
from segroi.utils.run_folder import run_folder
from segroi.utils.stop_signal import STATUS, StopSignal


class StopOnSigterm(HookBase):
    """On SIGTERM, finish the iteration, write a checkpoint and end; register it last."""

    def __init__(self, checkpointer: DetectionCheckpointer) -> None:
        self.checkpointer = checkpointer
        self.signal = StopSignal()

    def before_train(self) -> None:
        """Begin to listen."""
        self.signal.__enter__()

    def after_train(self) -> None:
        """Give the signal its meaning back."""
        self.signal.__exit__(None, None, None)

    def after_step(self) -> None:
        """End the process if the signal came."""
        if self.signal.received and comm.is_main_process():
            iteration = self.trainer.iter
            self.checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
            logging.getLogger(__name__).warning(
                "SIGTERM: stopped after iteration %d; --resume goes on", iteration
            )
            raise SystemExit(STATUS)


def refuse_live_folder(folder: str | Path) -> None:
    """Raise a UsageError if another run writes there; before anything of it is overwritten."""
    if comm.is_main_process():
        with run_folder(folder):
            pass


@contextlib.contextmanager
def surviving_run(model: nn.Module, folder: str | Path) -> Iterator[None]:
    """Around a training: the folder is held, versions are noted, divergence is explained."""
    if not comm.is_main_process():
        yield
        return
    with run_folder(folder), postmortem(model, folder):
        write_provenance(folder)
        yield
