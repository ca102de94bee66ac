"""Several batches an iteration, for more images than fit into memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class AccumulatingTrainer(AMPTrainer):
    """Detectron2's trainer, with or without mixed precision, on the mean of several batches.

    An iteration, and so everything that counts iterations (schedules, checkpoints, logs), is one
    step of the optimizer. The losses that are logged are means, too.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        batches: int,
        amp: bool = False,
    ) -> None:
        """Hold the parts.

        Args:
            model: gives a dict of losses for a batch.
            data_loader: gives the batches.
            optimizer: of the model.
            batches: how many batches a step takes.
            amp: mixed precision.
        """
        scaler = torch.amp.GradScaler("cuda", enabled=amp)
        super().__init__(model, data_loader, optimizer, grad_scaler=scaler)
        self.batches, self.amp = batches, amp

    def run_step(self) -> None:
        """Add the gradients of all batches, then step."""
        self.optimizer.zero_grad()
        means: dict[str, torch.Tensor] = {}
        data_time = 0.0
        for batch in range(self.batches):
            start = time.perf_counter()
            data = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            with self._gradients_of(last=batch == self.batches - 1):
                with torch.autocast("cuda", self.precision, enabled=self.amp):
                    losses = {k: v / self.batches for k, v in self.model(data).items()}
                self.grad_scaler.scale(sum(losses.values())).backward()
            for name, value in losses.items():
                means[name] = means.get(name, 0.0) + value.detach()
        self.after_backward()
        self._write_metrics(means, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _gradients_of(self, last: bool) -> contextlib.AbstractContextManager:
        """Processes exchange gradients once, after the last batch."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()


def build_step_trainer(
    model: nn.Module,
    data_loader: Iterable,
    optimizer: torch.optim.Optimizer,
    batches: int = 1,
    amp: bool = False,
) -> SimpleTrainer:
    """Detectron2's own trainer for one batch a step, else an :class:`AccumulatingTrainer`.

    Raises:
        ValueError: ``batches`` is less than 1.
    """
    if batches < 1:
        raise ValueError(f"build_step_trainer: batches must be at least 1, got {batches}")
    if batches > 1:
        return AccumulatingTrainer(model, data_loader, optimizer, batches, amp)
    return (AMPTrainer if amp else SimpleTrainer)(model, data_loader, optimizer)
