"""R3-CNN and HTC without their networks: loops, resampling, ensembles, statistics."""
