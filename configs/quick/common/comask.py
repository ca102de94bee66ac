"""A small CoMask head and neck."""

head = {"conv_dim": 128, "num_convs": 4, "norm_groups": 16, "offset_bias": 0.5}


def neck(channels):
    """CoMask_4's neck for a narrow pyramid."""
    return {"num_levels": 5, "channels": channels, "num_branches": 4, "chain": "independent"}
