"""Configuration: schema, presets and named methods."""

DEFAULT_METHOD = "sks-selftrained"
"""The method."""
