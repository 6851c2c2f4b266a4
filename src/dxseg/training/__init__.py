"""Training: both stages, self-training and distillation, on Lightning."""
