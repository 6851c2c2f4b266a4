"""What a student may have of its own, and what it has of its teacher."""

from __future__ import annotations

from typing import Any

from dxseg.config.presets import merge, validate_config
from dxseg.config.schema import RunConfig
from dxseg.errors import UsageError

FREE_SECTIONS = (
    *("stage2", "augment", "device", "data", "method"),
    *("rule_out_sensitivity", "rule_in_specificity"),
)
"""What may differ from the teacher's configuration; of ``data``, all but the size of the image."""

STEPS = 450
"""Of a student, if nothing else is said: three times those of stage 2, because it learns from
every labelled image and not from a few masks."""


def student_config(teacher: RunConfig, overrides: dict[str, Any]) -> RunConfig:
    """The configuration of a student: a U-Net with a label head, the rest as the teacher's.

    It does not train itself: its teacher's masks are its proposals.

    Args:
        teacher: configuration of the run that teaches.
        overrides: nested values, within `FREE_SECTIONS`.

    Raises:
        UsageError: a value that has to be the teacher's is to be changed, or is out of range.
    """
    model = {
        "architecture": "unet",
        "backbone": teacher.model.backbone,
        "decoder_channels": teacher.model.decoder_channels,
        "encoder_init": "stage1",
        "label_head": True,
    }
    student = {
        "method": f"{teacher.method}-student",
        "model": model,
        "stage2": {"steps": STEPS},
        "self_training": None,
    }
    bound = [key for key in overrides if key not in FREE_SECTIONS]
    bound += ["data.image_size"] if "image_size" in (overrides.get("data") or {}) else []
    if bound:
        raise UsageError(
            f"{', '.join(bound)}: a student has these of its teacher; of the others "
            f"{', '.join(FREE_SECTIONS)} may be changed"
        )
    return validate_config(merge(teacher.model_dump(exclude={"model"}), student, overrides))
