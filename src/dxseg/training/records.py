"""``run.json``, what a finished run leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dxseg.errors import DxsegError

RUN_FILE = "run.json"


def read_run(output: Path) -> dict[str, Any]:
    """The ``run.json`` of a finished run.

    Raises:
        DxsegError: there is none, or it is damaged.
    """
    path = output / RUN_FILE
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DxsegError(
            f"{path}: not found; expected the folder of a finished run: train it, or continue it "
            "with the command that started it"
        ) from error
    except ValueError as error:
        raise DxsegError(f"{path}: not JSON ({error}); remove it and train again") from error
    if not isinstance(loaded, dict):
        raise DxsegError(f"{path}: expected an object; remove it and train again")
    return loaded
