"""Training schedules in numbers, for batches of 16 images."""

images_per_batch = 16
sgd = {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-4}
warmup = {"iters": 1000, "factor": 0.001}

# 1x is 1.44 million images, about 12 epochs of COCO train2017.
schedule_1x = {"max_iter": 90_000, "steps": [60_000, 80_000]}
schedule_3x = {"max_iter": 270_000, "steps": [210_000, 250_000]}
