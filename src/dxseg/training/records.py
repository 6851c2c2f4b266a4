"""``run.json``, what a finished run leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dxseg.errors import DxsegError

RUN_FILE = "run.json"


def read_run(output: Path) -> dict[str, Any]:
    """The ``run.json`` of a finished run, with at least the key ``dataset``.

    Raises:
        DxsegError: there is none, or it is damaged or names no dataset.
    """
    path = output / RUN_FILE
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DxsegError(
            f"{path}: not found; expected the folder of a finished run: train it, or continue it "
            "with the command that started it"
        ) from error
    except ValueError as error:
        raise DxsegError(f"{path}: not JSON ({error}); remove it and train again") from error
    if not isinstance(loaded, dict) or not isinstance(loaded.get("dataset"), str):
        raise DxsegError(
            f"{path}: the key dataset is missing; expected the dataset's folder. Remove the "
            "file and train again"
        )
    return loaded
