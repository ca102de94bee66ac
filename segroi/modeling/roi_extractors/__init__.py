"""RoI extractors: `forward(features, rois) -> Tensor[K, C, h, w]`."""

from __future__ import annotations

from typing import Any

from segroi.modeling.roi_extractors.base import RoIExtractor
from segroi.modeling.roi_extractors.groie import GRoIE
from segroi.modeling.roi_extractors.modules import ROI_MODULES, build_roi_module
from segroi.modeling.roi_extractors.multi_scale_subnetwork import MultiScaleSubnetwork
from segroi.modeling.roi_extractors.single_level import SingleLevelRoIExtractor

ROI_EXTRACTORS: dict[str, type[RoIExtractor]] = {
    cls.__name__: cls for cls in (SingleLevelRoIExtractor, GRoIE, MultiScaleSubnetwork)
}


def build_roi_extractor(name: str, **kwargs: Any) -> RoIExtractor:
    """Build an extractor by the name of its class.

    Args:
        name: a key of `ROI_EXTRACTORS`.
        kwargs: arguments of its constructor.

    Returns:
        The extractor.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in ROI_EXTRACTORS:
        expected = ", ".join(ROI_EXTRACTORS)
        raise ValueError(f"build_roi_extractor: name must be one of {expected}; got {name!r}")
    return ROI_EXTRACTORS[name](**kwargs)


__all__ = [
    "ROI_EXTRACTORS",
    "ROI_MODULES",
    "GRoIE",
    "MultiScaleSubnetwork",
    "RoIExtractor",
    "SingleLevelRoIExtractor",
    "build_roi_extractor",
    "build_roi_module",
]
