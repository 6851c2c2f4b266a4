"""Evaluation: a trained run on a split, and the comparison of runs."""
