"""The operators in plain PyTorch: their definitions, oracles and named fallbacks."""
