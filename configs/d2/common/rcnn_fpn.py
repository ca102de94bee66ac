"""Detectron2's Faster and Mask R-CNN with R50-FPN, stem and res2 frozen as in its model zoo."""

from detectron2 import model_zoo

mask_rcnn = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
mask_rcnn.backbone.bottom_up.freeze_at = 2

faster_rcnn = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
faster_rcnn.backbone.bottom_up.freeze_at = 2
for _key in ("mask_in_features", "mask_pooler", "mask_head"):
    faster_rcnn.roi_heads.pop(_key)
