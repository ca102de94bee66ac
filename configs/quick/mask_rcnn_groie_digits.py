"""Small Mask R-CNN with GRoIE on scenes of handwritten digits, minutes on two CPU cores.

    python scripts/lazyconfig_train_net.py --config-file configs/quick/mask_rcnn_groie_digits.py \
        train.output_dir=output/digits

The scenes are drawn into $DETECTRON2_DATASETS/segroi_digits when first used; --data-json and
--images (--val-json, --val-images) train on other COCO-format data. Besides weights and logs
(metrics.json) the output holds inference/coco_instances_results.json: the detections, in COCO's
result format with masks as run-length codes.
"""

from ..common.groie import box_size, mask_size
from ..d2.common.groie import groie_pooler
from .common.small import channels, dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.box_pooler = groie_pooler(box_size, channels.fpn)
model.roi_heads.mask_pooler = groie_pooler(mask_size, channels.fpn)

# One run on a CPU, scenes as drawn by default: box AP 32.4, mask AP 25.3.
TEST = dict(EXPECTED_RESULTS=[["bbox", "AP", 32.4, 6.0], ["segm", "AP", 25.3, 6.0]])
