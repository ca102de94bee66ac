"""The torchvision host: models, data, one training loop, COCO evaluation and prediction."""
