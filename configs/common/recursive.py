"""R3-CNN, HTC and SBR-CNN in numbers."""

# Weights of the box coder of the first, second and third pair of heads.
bbox_reg_weights = [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)]
smooth_l1_beta = 1.0
score_threshold = 0.001

naive = {"alternation": "aaa"}
deeper = {"alternation": "aab"}
htc = {"alternation": "abc", "loss_weights": [1, 0.5, 0.25]}

sbr_modules = {"pre": "conv7x7", "post": "non_local7x7"}
sbr_box_head = {"variant": "e_early"}
sbr_mask_iou = {"variant": "b"}
