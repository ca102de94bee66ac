"""The multi-scale subnetwork before the mask head: on C4 (one map of 1024 channels) and on FPN."""

c4 = {"output_size": 14, "spatial_scales": [1 / 16], "in_channels": 1024, "out_channels": 256}
fpn = {
    "output_size": 14,
    "spatial_scales": [1 / 4, 1 / 8, 1 / 16, 1 / 32],
    "in_channels": 256,
    "out_channels": 256,
}
