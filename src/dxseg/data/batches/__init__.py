"""Batches: cached pixels, augmentation, samplers."""
