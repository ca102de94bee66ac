"""SSD on MobileNet-v1 and its instance segmentation branches (SSD-ISB)."""
