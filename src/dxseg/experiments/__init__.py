"""Experiments: many methods trained and evaluated under one protocol."""
