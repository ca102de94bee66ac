"""Grid R-CNN: the head of points, and the thresholds that its authors' code tests with."""

head = {"grid_size": 3, "point_channels": 64, "num_convs": 8, "norm_groups": 36}
training = {
    "grid_jitter": 0.15,
    "grid_max_rois": 192,
    "grid_radius": 1,
    "grid_loss_weight": 15.0,
}
thresholds = {"test_score_thresh": 0.03, "test_nms_thresh": 0.3}
grid_size = 14
