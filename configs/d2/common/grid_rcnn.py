"""Grid R-CNN out of Detectron2's Faster R-CNN config, by changing what differs."""

from detectron2.config import LazyCall as L

from segroi.d2 import SegroiPooler
from segroi.d2.roi_heads import ClassificationOutputLayers, GridROIHeads
from segroi.modeling.heads.grid_head import GridHead
from segroi.modeling.roi_extractors import SingleLevelRoIExtractor

from ...common.grid_rcnn import grid_size, head, thresholds, training
from ...common.groie import box_size, sampling_ratio, strides


def pooler(output_size, channels=256):
    """One level per RoI, sampled like GRoIE."""
    return L(SegroiPooler)(
        extractor=L(SingleLevelRoIExtractor)(
            output_size=output_size,
            spatial_scales=[1 / stride for stride in strides],
            in_channels=channels,
            sampling_ratio=sampling_ratio,
        )
    )


def to_grid_rcnn(model, channels=256):
    """Turn a lazy Faster R-CNN with FPN into Grid R-CNN, in place."""
    model.roi_heads.update(
        _target_=GridROIHeads,
        box_pooler=pooler(box_size, channels),
        grid_pooler=pooler(grid_size, channels),
        grid_head=L(GridHead)(in_channels=channels, **head),
        **training,
    )
    model.roi_heads.box_predictor.update(_target_=ClassificationOutputLayers, **thresholds)
