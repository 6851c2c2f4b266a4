"""Readers of images, masks and volumes."""
