"""Configurations from a preset, a method and overrides, or from the folder of a run."""

from __future__ import annotations

import reprlib
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from dxseg.config import DEFAULT_METHOD, Preset
from dxseg.config.schema import RunConfig
from dxseg.errors import DxsegError, UsageError
from dxseg.io.progress import console
from dxseg.io.yaml import parse_yaml, read_small_text

PRESETS: tuple[Preset, ...] = get_args(Preset)

OPTIONAL_STAGES = ("self_training", "student")
"""Sections of a preset that count for methods with such a stage only."""


@cache
def _recipe(name: str) -> dict[str, Any]:
    """Read a file of this package; what it returns is shared, and not to be changed."""
    text = (resources.files("dxseg") / "config" / f"{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def method_names() -> list[str]:
    """Names of the methods: the default, the paper's two branches and the controls."""
    return list(_recipe("methods"))


def merge(base: dict[str, Any], *changes: dict[str, Any]) -> dict[str, Any]:
    """Merge nested dictionaries from left to right; later values win."""
    merged = dict(base)
    for change in changes:
        for key, value in change.items():
            old = merged.get(key)
            both = isinstance(old, dict) and isinstance(value, dict)
            merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


RENAMED = {
    "arm": "method",
    "selftraining": "self_training",
    "shared_stages": "shared_encoder_levels",
    "lesion_free_share": "lesion_free_fraction",
    "known_label_share": "label_prompt_prob",
    "gradient_clip": "gradient_clip_val",
    "accumulate": "accumulate_grad_batches",
    "select": "checkpoint",
    "passes": "epochs",
    "teacher_decay": "ema_decay",
    "label_only_share": "unlabeled_fraction",
    "proposal_weight": "pseudo_label_weight",
    "gate_sensitivity": "rule_out_sensitivity",
    "nodes": "num_nodes",
}
"""Keys of earlier versions, which scripts may still have."""


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Parse `["stage2.steps=50"]` to a nested dictionary; values are YAML.

    Keys of earlier versions are accepted, with a note.

    Raises:
        UsageError: a pair has no `=` or its value is not YAML.
    """
    overrides: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals or not path:
            raise UsageError(f"--set {pair!r}: expected SECTION.KEY=VALUE, e.g. stage2.steps=50")
        value = parse_yaml(text, f"--set {pair!r}", UsageError)
        keys = [RENAMED.get(key, key) for key in path.split(".")]
        if keys != path.split("."):
            console.print(f"note: --set {path}: this key is now {'.'.join(keys)}")
        for key in reversed(keys):
            value = {key: value}
        overrides = merge(overrides, value)
    return overrides


def load_config(
    preset: str = "cpu", method: str = DEFAULT_METHOD, overrides: dict[str, Any] | None = None
) -> RunConfig:
    """Build the configuration of a preset and a method, with overrides.

    Raises:
        UsageError: an unknown preset, method or key, a value out of its range, or an override that
            gives the run the name of another method.
    """
    if preset not in PRESETS:
        raise UsageError(f"preset {preset!r} is unknown; choose one of {', '.join(PRESETS)}")
    methods = _recipe("methods")
    if method not in methods:
        raise UsageError(f"method {method!r} is unknown; choose one of {', '.join(methods)}")
    chosen = merge(methods[method], {"method": method}, overrides or {})
    name = chosen["method"]
    if name != method and name in method_names():
        raise UsageError(
            f"--set method={name} only names the run, which would stay {method!r}; choose the "
            f"method with --method {name}"
        )
    values = {
        section: value
        for section, value in _recipe(preset).items()
        if section not in OPTIONAL_STAGES or chosen.get(section) is not None
    }
    return validate_config(merge(values, chosen))


def validate_config(values: dict[str, Any]) -> RunConfig:
    """Build a configuration from nested values.

    Raises:
        UsageError: an unknown key, or a value out of its range.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"configuration: {_first_problems(error)}") from error


def read_config(path: Path) -> RunConfig:
    """Read the configuration that a run recorded.

    Raises:
        DxsegError: the file is missing, not YAML, or not a configuration.
    """
    content = parse_yaml(read_small_text(path, "the config.yaml of a run"), str(path))
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise DxsegError(f"{path}: {_first_problems(error)}") from error


def _first_problems(error: ValidationError, limit: int = 5) -> str:
    problems = [
        # What is wrong with several options names them itself.
        item["msg"].removeprefix("Value error, ")
        if not item["loc"]
        else f"{'.'.join(str(part) for part in item['loc'])} = {_shown(item['input'])}: "
        f"{_unexpected(item['loc']) if item['type'] == 'extra_forbidden' else item['msg']}"
        for item in error.errors()
    ]
    more = f"; and {len(problems) - limit} more" if len(problems) > limit else ""
    return "; ".join(problems[:limit]) + more


def _unexpected(loc: tuple[int | str, ...]) -> str:
    """Say that a key is unexpected, and which one is closest."""
    model: Any = RunConfig
    for part in loc[:-1]:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((kind for kind in kinds if hasattr(kind, "model_fields")), None)
    known = list(getattr(model, "model_fields", ()))
    close = get_close_matches(str(loc[-1]), known, n=1)
    meant = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
    return f"unexpected key; {meant}"


def _shown(value: Any) -> str:
    """A wrong value, shortened: aliases in YAML may be 10^9 long."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 1, 80, 80
    return short.repr(value)
