"""Results of an archive as Parquet: a folder of parts, a row for each image, its mask as a PNG.

Ten million masks are a few thousand files this way. A part is written once, whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files.table_schema import AREA, KNOWN, columns
from dxseg.inference.model_folder import ModelInfo
from dxseg.io.atomic import atomic_path, write_json_atomic

RESULTS = "results"
"""Folder of the parts, below the output folder."""

MASK = "mask"
_ABOUT = "archive.json"
_WHOLE = ("height", "width", AREA)
_REAL = ("p_", "confidence")
_LEFT_OUT = ("status", "error")  # what failed has no row
_KEY = ("name", "source", KNOWN)


class About(BaseModel):
    """``archive.json``: what all results of a folder have in common.

    Attributes:
        model: SHA-256 of the weights.
        precision: float32 or bfloat16.
        flip: Whether the mean with the mirrored image was taken.
        windows: Whether large images were cut into windows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    precision: str
    flip: bool
    windows: bool


def claim(root: Path, about: About, overwrite: bool) -> Path:
    """Make the folder of the parts, or make sure that it is one of the same model.

    Args:
        root: The output folder.
        about: What its results are to have in common.
        overwrite: Whether the results of an earlier call are removed.

    Returns:
        The folder of the parts.

    Raises:
        UsageError: It holds other results.
    """
    folder, path = root / RESULTS, root / _ABOUT
    parts = list(folder.glob("*.parquet")) if folder.is_dir() else []
    if parts and not overwrite and _read_about(path) != about:
        raise UsageError(
            f"{root}: holds results of another model or of other settings; choose another folder, "
            "or overwrite"
        )
    if overwrite:
        for part in parts:
            part.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, about.model_dump())
    return folder


def _read_about(path: Path) -> About | None:
    try:
        return About.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def schema(info: ModelInfo) -> pa.Schema:
    """The columns of `predictions.csv` with types of their own, and the mask.

    Args:
        info: Of the model.
    """
    kept = [name for name in columns(info) if name not in _LEFT_OUT]
    return pa.schema([*((name, _kind(name)) for name in kept), (MASK, pa.binary())])


def _kind(column: str) -> pa.DataType:
    if column.startswith(_WHOLE):
        return pa.int64()
    return pa.float64() if column.startswith(_REAL) else pa.string()


def part_name(names: Iterable[str]) -> str:
    """The file of a part: the same images, the same file, whoever writes it.

    Args:
        names: Of its images.
    """
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()
    return f"part-{digest[:16]}.parquet"


def write_part(path: Path, rows: Sequence[dict[str, Any]], info: ModelInfo) -> None:
    """Write the rows of a part, atomically.

    Args:
        path: The file.
        rows: Texts as in `predictions.csv`, and the bytes of a PNG under "mask".
        info: Of the model.
    """
    wanted = schema(info)
    texts = pa.schema([(f.name, f.type if f.name == MASK else pa.string()) for f in wanted])
    table = pa.Table.from_pylist(list(rows), schema=texts).cast(wanted)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def finished(folder: Path, wanted: Mapping[str, tuple[str, str]]) -> set[str]:
    """Which images have a result; what no longer holds is taken out of its part.

    A result holds if its image is not among those wanted, or is the same file with the same known
    label. Of two results of one image, which only a process could leave that outlived its killed
    master, one holds.

    Args:
        folder: Of the parts.
        wanted: Source and known label by name.

    Returns:
        The names of those that need not be predicted again.

    Raises:
        DxsegError: A part cannot be read.
    """
    seen: set[str] = set()
    for path in sorted(folder.glob("*.parquet")):
        holds = []
        for name, *told in _keys(path).itertuples(index=False):
            holds.append(name not in seen and wanted.get(name, tuple(told)) == tuple(told))
            if holds[-1]:
                seen.add(name)
        if not all(holds):
            _keep(path, holds)
    return seen & wanted.keys()


def _keys(path: Path) -> pd.DataFrame:
    """Name, source and known label of each row."""
    try:
        table: pd.DataFrame = pq.read_table(path, columns=list(_KEY)).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise DxsegError(
            f"{path}: not readable as Parquet ({error}); remove it, then its images are predicted "
            "again"
        ) from error
    return table.reindex(columns=list(_KEY)).fillna("")


def _keep(path: Path, rows: Sequence[bool]) -> None:
    if not any(rows):
        path.unlink()
        return
    table = pq.read_table(path).filter(pa.array(rows))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
