"""CoMask in numbers; what the paper leaves open is said beside it."""

# CoMask_4; the reduction of the channel attention is not in the paper.
neck = {"num_levels": 5, "channels": 256, "num_branches": 4, "chain": "independent"}
neck["reduction"] = 16
# Width and norm groups are D2Det's; the paper names neither.
head = {"conv_dim": 576, "num_convs": 9, "norm_groups": 36}
light_head = {"conv_dim": 256, "num_convs": 9, "norm_groups": 32}

strides = [4, 8, 16, 32]
box_size = 7
mask_size = 14

# D2Det's; NMS works on proposals, before their boxes are refined.
loss_weights = {"offset_loss_weight": 2.0, "mask_loss_weight": 1.0}
cls_loss_weight = 2.0
sampling = {"jitter": 0.15, "max_positives": 192}
nms_thresh = 0.3

short_edge = 800
schedule_2x = {"max_iter": 180_000, "steps": [120_000, 160_000]}
