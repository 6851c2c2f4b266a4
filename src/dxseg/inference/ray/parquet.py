"""Results of an archive as Parquet: a folder of part files, one row per image, masks as PNG.

Ten million masks are a few thousand files this way. A part is written once, as a whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files.output_folder import last_change
from dxseg.inference.files.table import AREA, LABEL_PROMPT, columns
from dxseg.inference.model_info import ModelInfo
from dxseg.io.atomic import atomic_path, write_json_atomic

RESULTS = "results"
"""Folder of the parts, below the output folder."""

MASK = "mask"
_MANIFEST = "manifest.json"
_INTEGER = ("height", "width", AREA)
_FLOAT = ("p_", "confidence")
_LEFT_OUT = ("status", "error")  # what failed has no row
_KEY = ("name", "source", LABEL_PROMPT)


class ArchiveManifest(BaseModel):
    """`manifest.json`: what all results of a folder have in common.

    Attributes:
        model: SHA-256 of the weights.
        info: SHA-256 of the other content of `model.json` that decides, such as thresholds.
        precision: float32 or bfloat16.
        flip: Whether predictions were averaged with the horizontal flip.
        sliding_window: Whether large images were cut into windows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    info: str
    precision: str
    flip: bool
    sliding_window: bool


def prepare_results(root: Path, manifest: ArchiveManifest, overwrite: bool) -> Path:
    """Create the folder of the part files, or check that its results are of the same model.

    Args:
        root: The output folder.
        manifest: What all results must have in common.
        overwrite: Whether to remove the results of an earlier call.

    Returns:
        The folder of the part files.

    Raises:
        UsageError: It holds other results.
    """
    folder, path = root / RESULTS, root / _MANIFEST
    parts = list(folder.glob("*.parquet")) if folder.is_dir() else []
    if parts and not overwrite and _read_manifest(path) != manifest:
        raise UsageError(
            f"{root}: holds results of another model or of other settings; choose another folder, "
            "or overwrite"
        )
    if overwrite:
        for part in parts:
            part.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, manifest.model_dump())
    return folder


def _read_manifest(path: Path) -> ArchiveManifest | None:
    try:
        return ArchiveManifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def schema(info: ModelInfo) -> pa.Schema:
    """The columns of `predictions.csv` with their types, and the mask.

    Args:
        info: Of the model.
    """
    kept = [name for name in columns(info) if name not in _LEFT_OUT]
    return pa.schema([*((name, _type(name)) for name in kept), (MASK, pa.binary())])


def _type(column: str) -> pa.DataType:
    if column.startswith(_INTEGER):
        return pa.int64()
    return pa.float64() if column.startswith(_FLOAT) else pa.string()


def part_name(names: Iterable[str]) -> str:
    """File name of a part: the same images have the same file, whichever worker writes it.

    Args:
        names: Of its images, in order.
    """
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()
    return f"part-{digest[:16]}.parquet"


def write_part(path: Path, rows: Sequence[dict[str, Any]], info: ModelInfo) -> None:
    """Write the rows of a part, atomically.

    Args:
        path: The file.
        rows: Strings as in `predictions.csv`, and "mask", the bytes of a PNG.
        info: Of the model.
    """
    typed = schema(info)
    texts = pa.schema([(f.name, f.type if f.name == MASK else pa.string()) for f in typed])
    table = pa.Table.from_pylist(list(rows), schema=texts).cast(typed)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def finished(folder: Path, wanted: Mapping[str, tuple[str, str]]) -> set[str]:
    """Find the images with a valid result; invalid rows are removed from their part files.

    A result is valid if its image is not among those wanted, or is the same file with the same
    label prompt, and has not changed since. Of two results of one image, which only a worker could
    write that outlived its killed parent, one is valid.

    Args:
        folder: Of the part files.
        wanted: Source and label prompt by name.

    Returns:
        The names of those that are not predicted again.

    Raises:
        DxsegError: A part cannot be read.
    """
    seen: set[str] = set()
    for path in sorted(folder.glob("*.parquet")):
        valid, written = [], path.stat().st_mtime
        for name, *found in _keys(path).itertuples(index=False):
            unchanged = wanted.get(name, tuple(found)) == tuple(found) and (
                name not in wanted or last_change(Path(found[0])) <= written
            )
            valid.append(name not in seen and unchanged)
            if valid[-1]:
                seen.add(name)
        if not all(valid):
            _filter_rows(path, valid)
    return seen & wanted.keys()


def _keys(path: Path) -> pd.DataFrame:
    """Name, source and label prompt of each row, "" where a model has no labels."""
    try:
        present = [name for name in _KEY if name in pq.read_schema(path).names]
        table: pd.DataFrame = pq.read_table(path, columns=present).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise DxsegError(
            f"{path}: not readable as Parquet ({error}); remove it, then its images are predicted "
            "again"
        ) from error
    return table.reindex(columns=list(_KEY), fill_value="").fillna("")


def _filter_rows(path: Path, rows: Sequence[bool]) -> None:
    if not any(rows):
        path.unlink()
        return
    table, state = pq.read_table(path).filter(pa.array(rows)), path.stat()
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        # The rows that stay are as old as they were: `finished` compares their images with it.
        os.utime(temporary, ns=(state.st_atime_ns, state.st_mtime_ns))
