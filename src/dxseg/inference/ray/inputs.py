"""The images of an archive: files and folders, or a table of paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dxseg.data.readers.volume_files import is_volume_file
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files.inputs import PredictionInput, find_images
from dxseg.io.user_tables import read_user_table

TABLES = (".csv", ".tsv", ".parquet")
PATHS = ("image", "file", "path")
"""Columns that may hold the paths; the first that a table has is used."""

NAMES = "case_id"


def archive_items(
    inputs: Sequence[str | Path],
    *,
    skip: Sequence[Path] = (),
    passed_over: list[Path] | None = None,
) -> list[PredictionInput]:
    """List the images, in a fixed order, each with a unique name.

    Args:
        inputs: Files, folders or patterns, as `find_images` takes them; or one table, .csv, .tsv or
            .parquet, with a column of `PATHS`, relative to the table's folder or in full, and
            perhaps case_id, which then is the name of the result.
        skip: Folders that are skipped.
        passed_over: List to which files that are no image of a known type are added.

    Raises:
        UsageError: There is no image, a volume is among them, a table lacks its column or a value,
            or two images have one name.
        DxsegError: The table cannot be read.
    """
    first = Path(inputs[0])
    if len(inputs) == 1 and first.suffix.lower() in TABLES:
        items = _from_table(first)
    else:
        items = find_images(inputs, skip=skip, passed_over=passed_over)
    for item in items:
        if is_volume_file(item.source):
            raise UsageError(
                f"{item.source}: is a volume, and --engine ray takes single images; predict "
                "volumes without it"
            )
        try:
            f"{item.name}{item.source}".encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{str(item.source)!r}: its name is not UTF-8, which Parquet requires; rename it"
            ) from error
    return items


def _from_table(path: Path) -> list[PredictionInput]:
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else read_user_table(path)
    column = next((name for name in PATHS if name in table), None)
    if column is None:
        raise UsageError(
            f"{path}: its columns are {', '.join(map(str, table.columns))}; expected one of "
            f"{', '.join(PATHS)}"
        )
    names = table[NAMES] if NAMES in table else table[column]
    _check(path, table[column], names)
    folder = path.resolve().parent
    return [
        PredictionInput(name, folder / source)
        for name, source in zip(names, table[column], strict=True)
    ]


def _check(path: Path, sources: pd.Series[str], names: pd.Series[str]) -> None:
    """Check that every row has an image and a unique name."""
    if sources.empty:
        raise UsageError(f"{path}: has no row; expected one row per image")
    for column in (sources, names):
        empty = column.index[column.str.strip() == ""]
        if len(empty):
            raise UsageError(f"{path}: row {empty[0]}: {column.name} is empty; fill it in")
    twice = names.index[names.duplicated()]
    if len(twice):
        raise UsageError(
            f"{path}: row {twice[0]}: {names.name} {names[twice[0]]!r} is in an earlier row too; "
            "each image needs a unique name"
        )


def _read_parquet(path: Path) -> pd.DataFrame:
    """Read the columns of paths and names, as strings, rows numbered from 1."""
    try:
        present = pq.read_schema(path).names
        wanted = [name for name in (*PATHS, NAMES) if name in present]
        table: pd.DataFrame = pq.read_table(path, columns=wanted).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise DxsegError(
            f"{path}: not readable as Parquet ({error}); expected a table with a column {PATHS[0]}"
        ) from error
    table.index = pd.RangeIndex(1, len(table) + 1)
    return table.astype("object").where(table.notna(), "").astype(str)
