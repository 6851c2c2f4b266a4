"""Models: the prompted dual U-Net, its parts and baselines, in plain PyTorch."""
