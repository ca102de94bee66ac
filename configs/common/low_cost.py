"""The thesis's recipe for semantic segmentation, and its rows in numbers."""

num_classes = 19
rmsprop = {"lr": 1e-5, "decay": 0.9, "eps": 1e-10, "momentum": 0.0, "weight_decay": 0.0}
cityscapes = {"max_iter": 300_000, "eval_period": 5_000, "batch_size": 1}
person_crops = {"max_iter": 400_000, "eval_period": 5_000, "batch_size": 4}

mobilenet = {"depth_multiplier": 0.5}
# Maps of the decoder, fine to coarse, by the number of its steps.
mobilenet_maps = [["conv13"], ["conv11", "conv13"], ["conv5", "conv11", "conv13"]]
squeezenet_maps = [["fire9"], ["pool3", "fire9"], ["pool1", "pool3", "fire9"]]
