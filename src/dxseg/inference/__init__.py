"""Inference: the one path from an image to its mask, for files and in memory."""
