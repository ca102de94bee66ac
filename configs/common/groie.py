"""GRoIE's best configuration, and the two crops it is used for."""

modules = {"pre": "conv5x5", "aggregation": "sum", "post": "attention"}
sampling_ratio = 2
strides = [4, 8, 16, 32]
box_size = 7
mask_size = 14
