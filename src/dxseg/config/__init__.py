"""Configuration: schema, presets and named methods."""

DEFAULT_METHOD = "unet-stage1-student"
"""The cheapest method that no other was better than (docs/results.md)."""
