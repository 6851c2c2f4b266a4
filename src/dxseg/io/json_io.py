"""Reading JSON of others, bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dxseg.errors import DxsegError

_BYTES = 2**30


def read_json(path: Path, remedy: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        remedy: How to make a valid one, for errors.

    Raises:
        DxsegError: It cannot be read, is larger than 1 GiB, nested too deep or not JSON.
    """
    try:
        if path.stat().st_size > _BYTES:
            raise DxsegError(f"{path}: larger than {_BYTES} bytes; expected less; {remedy}")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DxsegError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DxsegError(f"{path}: not valid JSON; expected JSON; {remedy}") from error
