"""Which branch segments which encompassing box (SSD-ISB, sections 3.2 and 5.2).

Shapes are (height, width) in cells of the 20 x 20 grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Shape = tuple[int, int]

SINGLE = ((10, 10),)
# Table 5.1. Table 5.5's parameter count of Single-Shape+ needs a thirteenth shape, presumably 1x1,
# and that of Single-Shape, 8,862,738, fits no number of branches (12 give 8,508,434).
FREQUENT = (
    *((7, 2), (6, 3), (6, 2), (5, 3), (5, 2), (4, 3)),
    *((4, 2), (3, 3), (3, 2), (3, 1), (2, 2), (2, 1)),
)
MULTI = (
    *((15, 10), (9, 4), (7, 3), (6, 3), (5, 2)),
    *((4, 2), (3, 2), (2, 2), (2, 1), (1, 1)),
)
NEW_SHAPES = ((15, 15), (10, 10), (8, 8), (6, 6), (4, 4), (2, 2), (1, 1))
SMALL_SHAPES = ((10, 10), (8, 6), (6, 4), (5, 3), (4, 2), (2, 2), (2, 1), (1, 1))


@dataclass(frozen=True)
class BranchFamily:
    """A set of branches and the rule that sends a box to one of them.

    Args:
        shapes: of the branches, in the order in which they are tried.
        rule: "any" sends every box to the first branch; "exact" to the branch of its own shape;
            "fit" to the first branch that is not larger than it along either side.
        rest: index of the branch that takes what the rule leaves over, or -1 (no mask).
        budget: most boxes of an image in one branch, by score.
        mask_weight: weight of the mask loss.
    """

    shapes: tuple[Shape, ...]
    rule: str
    rest: int = -1
    budget: int = 30
    mask_weight: float = 150.0

    def __post_init__(self) -> None:
        if self.rule not in ("any", "exact", "fit"):
            raise ValueError(f"BranchFamily: rule must be any, exact or fit, got {self.rule!r}")
        if not self.shapes or not -1 <= self.rest < len(self.shapes):
            raise ValueError(
                f"BranchFamily: rest must be -1 or a branch of {len(self.shapes)}, got {self.rest}"
            )

    @property
    def exact(self) -> list[bool]:
        """For each branch, whether its crops are cut out rather than resized."""
        return [self.rule == "exact" and i != self.rest for i in range(len(self.shapes))]

    def assign(self, cells: Tensor) -> Tensor:
        """Branch of each box, -1 for none.

        Args:
            cells: int64 Tensor[K, 4] (x0, y0, x1, y1).

        Returns:
            int64 Tensor[K].
        """
        if self.rule == "any":
            return torch.zeros_like(cells[:, 0])
        shapes = cells.new_tensor(self.shapes)
        sides = (cells[:, 2:] - cells[:, :2]).flip(1)[:, None]
        fits = (sides == shapes if self.rule == "exact" else sides >= shapes).all(dim=-1)
        if self.rest >= 0:
            fits[:, self.rest] = False
        return torch.where(fits.any(dim=1), fits.int().argmax(dim=1), self.rest)


FAMILIES = {
    "single_branch": BranchFamily(SINGLE, "any", budget=100, mask_weight=30.0),
    "single_shape": BranchFamily(FREQUENT, "exact"),
    "single_shape_plus": BranchFamily((*FREQUENT, (14, 14)), "exact", rest=len(FREQUENT)),
    "multi_shape": BranchFamily(MULTI, "fit"),
    "multi_shape_new": BranchFamily(NEW_SHAPES, "fit"),
    "multi_shape_small": BranchFamily(SMALL_SHAPES, "fit"),
}


def branch_family(
    family: str | BranchFamily, shapes: Sequence[Sequence[int]] | None = None
) -> BranchFamily:
    """A family by name, with other shapes where they are given.

    For "single_shape_plus" the last of ``shapes`` takes the rest.
    """
    if isinstance(family, str):
        if family not in FAMILIES:
            raise ValueError(
                f"branch_family: family must be one of {list(FAMILIES)}, got {family!r}"
            )
        family = FAMILIES[family]
    if shapes is None:
        return family
    pairs = tuple((int(h), int(w)) for h, w in shapes)
    return replace(family, shapes=pairs, rest=len(pairs) - 1 if family.rest >= 0 else -1)


def within_budget(branch: Tensor, image: Tensor, branches: int, budget: int) -> Tensor:
    """Branches of boxes after each branch took its first ``budget`` boxes of each image.

    Args:
        branch: int64 Tensor[K], -1 for none; boxes of an image in order of preference.
        image: int64 Tensor[K].
        branches: number of branches.
        budget: most boxes of an image in one branch.

    Returns:
        int64 Tensor[K], -1 for boxes that found their branch full.
    """
    group = image * (branches + 1) + branch + 1
    order = group.argsort(stable=True)
    ordered = group[order]
    first = torch.searchsorted(ordered, ordered)
    rank = torch.empty_like(branch)
    rank[order] = torch.arange(len(branch), device=branch.device) - first
    return torch.where(rank < budget, branch, -1)
