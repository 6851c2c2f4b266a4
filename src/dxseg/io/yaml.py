"""Reading YAML files that people write: size limit, safe types only, errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dxseg.errors import DxsegError

BYTE_LIMIT = 2**24
"""Larger than any file that a person writes."""


def read_small_text(path: Path, expected: str, kind: type[DxsegError] = DxsegError) -> str:
    """Read a text file, UTF-8 with or without a byte-order mark.

    Args:
        path: The file.
        expected: What the file should be, for the errors.
        kind: Type of the errors.

    Raises:
        DxsegError: It is absent, a folder, not UTF-8 or larger than `BYTE_LIMIT`.
    """
    try:
        if path.stat().st_size > BYTE_LIMIT:
            raise kind(f"{path}: larger than {BYTE_LIMIT} bytes; expected {expected}")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise kind(f"{path}: not found; expected {expected}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise kind(f"{path}: cannot be read ({error}); expected {expected}, in UTF-8") from error


def parse_yaml(text: str, source: str, kind: type[DxsegError] = DxsegError) -> Any:
    """Parse YAML; the only types are those of JSON, and dates.

    Args:
        text: The YAML.
        source: Origin of the text, for the errors.
        kind: Type of the errors.

    Raises:
        DxsegError: It is not YAML.
    """
    try:
        return yaml.safe_load(text)
    except Exception as error:
        # Wrong dates, numbers and depths come as nearly every type there is, not as YAMLError.
        reason = str(error) or type(error).__name__
        raise kind(f"{source}: not valid YAML; fix the place named here: {reason}") from error
