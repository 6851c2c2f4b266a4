"""Evaluation: a trained run on a split, and many runs on one footing."""
