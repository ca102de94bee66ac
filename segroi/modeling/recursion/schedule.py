"""Which head works in which loop, at which IoU threshold and with which loss weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# SBR-CNN: IoU thresholds and loss weights of one to five training loops.
_DEFAULTS: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    1: ((0.5,), (1.0,)),
    2: ((0.5, 0.6), (1.0, 0.75)),
    3: ((0.5, 0.6, 0.7), (1.0, 0.75, 0.5)),
    4: ((0.5, 0.6, 0.7, 0.8), (1.0, 0.75, 0.5, 0.3)),
    5: ((0.5, 0.6, 0.7, 0.75, 0.8), (1.0, 0.8, 0.6, 0.5, 0.4)),
}


@dataclass(frozen=True)
class LoopSchedule:
    """The training loops of R3-CNN (SBR-CNN section 3.1, Table 5); HTC is "abc".

    Args:
        stages: index of the head of each loop.
        iou_thresholds: IoU from which a box is positive, for each loop.
        loss_weights: factor of all losses, for each loop (alpha of eq. (6)).

    Raises:
        ValueError: if the three do not have the same length, or a head is left out.

    Example:
        >>> LoopSchedule.from_alternation("aab").stages
        (0, 0, 1)
    """

    stages: tuple[int, ...]
    iou_thresholds: tuple[float, ...]
    loss_weights: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = (len(self.stages), len(self.iou_thresholds), len(self.loss_weights))
        if len(set(lengths)) != 1 or not self.stages:
            raise ValueError(
                "LoopSchedule: stages, iou_thresholds and loss_weights must have one length > 0, "
                f"got {lengths}"
            )
        if set(self.stages) != set(range(self.num_heads)):
            raise ValueError(f"LoopSchedule: stages must use heads 0..H-1, got {self.stages}")

    @classmethod
    def from_alternation(
        cls,
        alternation: str,
        iou_thresholds: Sequence[float] | None = None,
        loss_weights: Sequence[float] | None = None,
    ) -> LoopSchedule:
        """Build a schedule from a string such as "aab", one letter per loop and head.

        Args:
            alternation: letters from "a" on.
            iou_thresholds: None or empty takes the paper's for this number of loops.
            loss_weights: None or empty takes the paper's for this number of loops.

        Returns:
            The schedule.

        Raises:
            ValueError: if something other than a letter stands in the string, or if a default is
                wanted for a number of loops that the paper does not have.
        """
        stages = tuple(ord(letter) - ord("a") for letter in alternation)
        if not iou_thresholds or not loss_weights:
            if len(stages) not in _DEFAULTS:
                raise ValueError(
                    f"LoopSchedule: no defaults for {len(stages)} loops ({alternation!r}); "
                    "give iou_thresholds and loss_weights"
                )
            default_thresholds, default_weights = _DEFAULTS[len(stages)]
            iou_thresholds = iou_thresholds or default_thresholds
            loss_weights = loss_weights or default_weights
        return cls(stages, tuple(iou_thresholds), tuple(loss_weights))

    @property
    def num_heads(self) -> int:
        """Number H of heads."""
        return max(self.stages) + 1

    def inference_stages(self, loops: int | None = None) -> tuple[int, ...]:
        """Heads of the evaluation loops: cut short, or continued with the last loop's head.

        Args:
            loops: number of evaluation loops; None or 0 for as many as in training.
        """
        loops = loops or len(self.stages)
        return (self.stages + (self.stages[-1],) * loops)[:loops]


def average_class_scores(logits: Sequence[Tensor], average: str = "logits") -> Tensor:
    """Class probabilities of all loops together.

    Args:
        logits: Tensor[K, num_classes + 1] per loop.
        average: "logits" before the softmax, as R3-CNN and HTC do, or "scores" after it, as
            Cascade R-CNN does.

    Returns:
        Tensor[K, num_classes + 1].

    Raises:
        ValueError: if `average` is unknown.
    """
    if average not in ("logits", "scores"):
        raise ValueError(
            f"average_class_scores: average must be 'logits' or 'scores', got {average!r}"
        )
    stacked = torch.stack(tuple(logits))
    if average == "logits":
        return stacked.mean(dim=0).softmax(dim=-1)
    return stacked.softmax(dim=-1).mean(dim=0)
