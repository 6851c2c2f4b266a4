"""Splits by patient or near-duplicate group, and the choice of training masks."""
