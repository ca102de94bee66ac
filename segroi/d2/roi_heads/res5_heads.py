"""C4 heads: boxes through res5 as in Detectron2, masks through a segroi RoI extractor on res4."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead, Res5ROIHeads, build_mask_head
from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from segroi.d2.poolers import SegroiPooler


@ROI_HEADS_REGISTRY.register()
class ExtractorRes5ROIHeads(Res5ROIHeads):
    """``Res5ROIHeads`` with a mask pooler of its own, named by ``ROI_MASK_HEAD.EXTRACTOR``.

    Detectron2 predicts masks from the 7x7 maps that res5 makes for the boxes. Here the mask head
    reads the extractor's crops of res4: res5 wants 1024 channels and cannot follow a module of 256.
    """

    @configurable
    def __init__(self, *, mask_pooler: nn.Module | None = None, **kwargs: Any) -> None:
        """See Detectron2's class; ``mask_pooler`` has the call signature of its ``ROIPooler``."""
        super().__init__(**kwargs)
        self.mask_pooler = mask_pooler

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Build Detectron2's parts, then the mask head behind its extractor."""
        boxes_only = cfg.clone()  # Detectron2 would put the mask head behind res5
        boxes_only.defrost()
        boxes_only.MODEL.MASK_ON = False
        parts = super().from_config(boxes_only, input_shape)
        if cfg.MODEL.MASK_ON:
            pooler = SegroiPooler(cfg, input_shape, "ROI_MASK_HEAD")
            height, width = pooler.extractor.output_size
            shape = ShapeSpec(channels=pooler.out_channels, height=height, width=width)
            parts |= {"mask_pooler": pooler, "mask_head": build_mask_head(cfg, shape)}
        return parts

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """See ``ROIHeads.forward``."""
        if not self.training:
            return super().forward(images, features, proposals, targets)
        proposals = self.label_and_sample_proposals(proposals, targets)
        maps = [features[f] for f in self.in_features]
        crops = self._shared_roi_transform(maps, [p.proposal_boxes for p in proposals])
        losses = self.box_predictor.losses(self.box_predictor(crops.mean(dim=[2, 3])), proposals)
        if self.mask_on:
            positive, _ = select_foreground_proposals(proposals, self.num_classes)
            crops = self.mask_pooler(maps, [p.proposal_boxes for p in positive])
            losses.update(self.mask_head(crops, positive))
        return [], losses

    def forward_with_given_boxes(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Add ``pred_masks`` to instances that have ``pred_boxes`` and ``pred_classes``."""
        if not self.mask_on:
            return instances
        maps = [features[f] for f in self.in_features]
        crops = self.mask_pooler(maps, [i.pred_boxes for i in instances])
        return self.mask_head(crops, instances)


@ROI_MASK_HEAD_REGISTRY.register()
class MaskRCNNConvHead(MaskRCNNConvUpsampleHead):
    """Detectron2's mask head, of which ``ROI_MASK_HEAD.MASK_UPSAMPLE: False`` drops the upsampling.

    Its masks then have the extractor's resolution (14x14 on C4, which the subnetwork's paper
    reports for ResNet-50). The names of the parameters stay those of Detectron2.
    """

    @configurable
    def __init__(self, input_shape: ShapeSpec, *, upsample: bool = True, **kwargs: Any) -> None:
        """See Detectron2's class.

        Args:
            input_shape: shape of the crops.
            upsample: whether a 2x2 deconvolution with ReLU stands before the predictor.
            kwargs: ``num_classes``, ``conv_dims``, ``conv_norm`` and so on.
        """
        super().__init__(input_shape, **kwargs)
        if not upsample:
            before, after = self.deconv.in_channels, self.predictor.in_channels
            if before != after:
                raise ValueError(
                    "MaskRCNNConvHead: without upsampling the predictor reads the last convolution:"
                    f" both need the same channels, got {before} and {after}"
                )
            del self.deconv, self.deconv_relu

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read ``MODEL.ROI_MASK_HEAD``."""
        boxes_only = cfg.clone()  # Detectron2 would put the mask head behind res5
        boxes_only.defrost()
        boxes_only.MODEL.MASK_ON = False
        parts = super().from_config(boxes_only, input_shape)
        return {**parts, "upsample": cfg.MODEL.ROI_MASK_HEAD.MASK_UPSAMPLE}
