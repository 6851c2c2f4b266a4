"""Configuration: schema, presets and named methods."""

from typing import Literal

DEFAULT_METHOD = "unet-stage1-student"
"""The cheapest method that no other was better than (docs/results.md)."""

Preset = Literal["cpu", "cpu-thorough", "paper"]


def stage_title(name: str) -> str:
    """Make the title of a stage: `stage1` gives "Stage 1", `student2` "Student 2".

    Args:
        name: Of its folder, as in `RunConfig.stages`.
    """
    if name == "self_training":
        return "Self-training"
    word = name.rstrip("0123456789")
    return f"{word.capitalize()} {name[len(word) :]}".strip()
