"""GRoIE as a pooler for Detectron2's StandardROIHeads."""

from detectron2.config import LazyCall as L

from segroi.d2 import SegroiPooler
from segroi.modeling.roi_extractors import GRoIE

from ...common.groie import modules, sampling_ratio, strides


def groie_pooler(output_size, channels=256):
    """A pooler of its own weights; override for instance ``.extractor.pre``."""
    return L(SegroiPooler)(
        extractor=L(GRoIE)(
            output_size=output_size,
            spatial_scales=[1 / stride for stride in strides],
            in_channels=channels,
            sampling_ratio=sampling_ratio,
            **modules,
        )
    )
