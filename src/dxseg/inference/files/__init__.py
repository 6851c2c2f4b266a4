"""Prediction of files: inputs, output folder, writers."""
