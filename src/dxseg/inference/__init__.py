"""Inference: bundles, the predictor and its writers."""
