"""Checks of COCO-format data before the first training step: what is wrong, where, what to do.

``check_dataset`` looks at one file and its images, ``check_split`` at a training and a validation
file together, ``repair`` writes a copy without what can be mended mechanically.
"""

from segroi.utils.data_check.check import check_dataset, check_split
from segroi.utils.data_check.findings import RULES, Finding, Findings
from segroi.utils.data_check.gate import refuse_broken_data
from segroi.utils.data_check.repair import repair

__all__ = [
    "RULES",
    "Finding",
    "Findings",
    "check_dataset",
    "check_split",
    "refuse_broken_data",
    "repair",
]
