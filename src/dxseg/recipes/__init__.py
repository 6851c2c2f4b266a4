"""The recipes in YAML, of presets and named arms, and the arm that is trained if none is named."""

DEFAULT_ARM = "sks-selftrained"
"""The method."""
