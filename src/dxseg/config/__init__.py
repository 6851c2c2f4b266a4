"""Configuration: schema, presets and named methods."""

from typing import Literal

DEFAULT_METHOD = "unet-stage1-student"
"""The cheapest method that no other was better than (docs/results.md)."""

Preset = Literal["cpu", "cpu-thorough", "paper"]
