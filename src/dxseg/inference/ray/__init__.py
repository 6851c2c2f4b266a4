"""Prediction of large image collections with Ray Data."""
