"""Results of an archive as one Parquet table in parts: a row an image, with its mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dxseg.data.files import atomic_path
from dxseg.errors import DxsegError
from dxseg.inference.bundle import BundleInfo
from dxseg.inference.rows import AREA, KNOWN, VOLUME, columns
from dxseg.inference.writers import Row

FOLDER = "predictions.parquet"
MASK = "mask"
"""Column of the mask, a PNG as `dxseg.inference.writers.write_mask_png` writes it."""

_WHOLE = ("height", "width", "slices", AREA)
_REAL = ("confidence", "p_", VOLUME)
_PART_ROWS = 10_000


def schema(info: BundleInfo) -> pa.Schema:
    """The columns of `predictions.csv` of a model of images, with types, and the mask."""
    fields = [(name, _kind(name)) for name in columns(info)]
    return pa.schema([*fields, (MASK, pa.binary())])


def _kind(name: str) -> Any:
    if name.startswith(_WHOLE):
        return pa.int64()
    return pa.float64() if name.startswith(_REAL) else pa.string()


def as_table(rows: list[Row], masks: list[bytes | None], info: BundleInfo) -> pa.Table:
    """Rows as `predictions.csv` has them, typed, beside their masks; what is empty is null."""
    typed: list[dict[str, Any]] = []
    convert: dict[Any, Callable[[str], Any]] = {pa.int64(): int, pa.float64(): float}
    for row, mask in zip(rows, masks, strict=True):
        values = {name: convert.get(_kind(name), str)(text) for name, text in row.items() if text}
        typed.append(values | {MASK: mask})
    return pa.Table.from_pylist(typed, schema=schema(info))


class ParquetResults:
    """The parts of the table; each is written whole, so a killed process leaves whole parts."""

    def __init__(self, folder: Path, info: BundleInfo) -> None:
        """Name the folder; nothing is touched yet."""
        self.folder = folder
        self.schema = schema(info)
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def open(self, keep: Callable[[dict[str, str]], bool]) -> None:
        """Drop the rows that are to be made anew.

        Args:
            keep: called with name, source, status, model and known label of every row there is.

        Raises:
            DxsegError: a part is damaged or of other columns.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = [n for n in ("name", "source", "status", "model", KNOWN) if n in self.schema.names]
        for path in sorted(self.folder.glob("part-*.parquet")):
            table = self._read(path, wanted)
            kept = [keep({n: v or "" for n, v in row.items()}) for row in table.to_pylist()]
            if not any(kept):
                path.unlink()
            elif not all(kept):
                self._write(path, self._read(path).filter(pa.array(kept)))

    def add(self, table: pa.Table) -> None:
        """Take rows; they are on the disk after `flush`, or when there are enough for a part."""
        self._waiting.append(table)
        self._rows += len(table)
        if self._rows >= _PART_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what has come in as a part of its own."""
        if self._rows:
            taken = [int(path.stem[5:]) for path in self.folder.glob("part-*.parquet")]
            path = self.folder / f"part-{max(taken, default=-1) + 1:06d}.parquet"
            self._write(path, pa.concat_tables(self._waiting))
        self._waiting, self._rows = [], 0

    def _write(self, path: Path, table: pa.Table) -> None:
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def _read(self, path: Path, names: list[str] | None = None) -> pa.Table:
        try:
            found = pq.read_schema(path)
            if not found.equals(self.schema):
                raise DxsegError(
                    f"{path}: its columns are {', '.join(found.names)}; this model writes "
                    f"{', '.join(self.schema.names)}. Choose another output folder, or overwrite."
                )
            return pq.read_table(path, columns=names)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DxsegError(
                f"{path}: cannot be read as Parquet ({error}); remove it, and its images are "
                "predicted again"
            ) from error


def failed(table: pa.Table) -> list[tuple[str, str]]:
    """Name and reason of the rows without a result."""
    rows = table.filter(pc.equal(table["status"], "failed")).select(["name", "error"])
    return [(row["name"], row["error"]) for row in rows.to_pylist()]
