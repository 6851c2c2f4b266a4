"""Importing volumes named as LiTS names them, and what the importer wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dxseg.commands.import_volumes import import_volumes
from dxseg.data.readers.slicing import WINDOWS, Slicing
from dxseg.io.atomic import sha256_file

LIVER = Slicing(axis="axial", window=WINDOWS["liver"])


def bring(source: Path, destination: Path, **options: Any) -> Any:
    options = {
        "window": "liver",
        "mask_replace": ("volume", "segmentation"),
        "mask_values": {2: "tumour"},
        **options,
    }
    return import_volumes(source, destination, **options)


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def age(folder: Path) -> set[Path]:
    """Give all files a time by which `is_aged` knows that they were not written again."""
    paths = {path for path in folder.rglob("*") if path.is_file()}
    for path in paths:
        os.utime(path, (1, 1))
    return paths


def is_aged(path: Path) -> bool:
    return path.stat().st_mtime == 1
