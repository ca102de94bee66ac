"""Without collaborative learning: boxes of Fast R-CNN's regressor, no dense offsets."""

from detectron2.modeling.roi_heads import FastRCNNOutputLayers

from ....configs.d2.comask_R_50_FPN_2x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.box = "fc"
model.roi_heads.box_predictor._target_ = FastRCNNOutputLayers
model.roi_heads.box_predictor.test_nms_thresh = 0.5
