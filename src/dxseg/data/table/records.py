"""Records of what people did in a dataset: tables that only grow, one row per act.

A record holds roles, never names. `annotations.csv` lists every mask that was saved, `reviews.csv`
every second reading and every proposal to change the table of cases.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from filelock import FileLock

from dxseg.errors import DxsegError, UsageError, quote
from dxseg.io.atomic import write_bytes_atomic
from dxseg.io.csv_io import read_table

Role = Literal["radiologist", "clinician", "radiographer", "researcher", "trainee", "other"]
ROLES: tuple[str, ...] = get_args(Role)

Record = TypeVar("Record")

_LOCK = ".annotations.lock"
_LOCK_SECONDS = 30


@contextmanager
def records_lock(root: Path) -> Iterator[None]:
    """Hold what everybody who saves into a dataset waits for.

    Args:
        root: Folder of the dataset.
    """
    with FileLock(root / _LOCK, timeout=_LOCK_SECONDS):
        yield


def check_role(role: str) -> None:
    """Check the role of an annotator.

    Args:
        role: One of `ROLES`.

    Raises:
        UsageError: It is another.
    """
    if role not in ROLES:
        raise UsageError(
            f"role {quote(role)}: expected one of {', '.join(ROLES)}; names are not stored"
        )


def now() -> str:
    """The time of a record: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def inside(root: Path, name: str, expected: str) -> Path:
    """The path of a file or folder of a dataset that is read or written.

    Args:
        root: Folder of the dataset, resolved.
        name: Of the file or folder.
        expected: What it should be, for the error.

    Raises:
        DxsegError: It is a link that leads out of the dataset.
    """
    path = root / name
    if not path.resolve().is_relative_to(root):
        raise DxsegError(f"{path}: leads out of the dataset; expected {expected} inside it")
    return path


@contextmanager
def appended(path: Path, record: Any) -> Iterator[None]:
    """Append a row to a table, atomically; taken back if the block fails.

    Args:
        path: The table, from `inside`.
        record: A dataclass of texts; its fields are the columns.
    """
    before = path.read_bytes() if path.exists() else None
    header = _line(tuple(field.name for field in fields(record)))
    try:
        write_bytes_atomic(path, (before or header) + _line(astuple(record)))
        yield
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            write_bytes_atomic(path, before)
        raise


def read_records(root: Path, name: str, kind: type[Record]) -> list[Record]:
    """Read a table of records, oldest first; none without the file.

    Args:
        root: Folder of the dataset, resolved.
        name: Of the table.
        kind: The dataclass of its rows.

    Raises:
        DxsegError: The table cannot be read, lacks a column or leads out of the dataset.
    """
    path = inside(root, name, "a table")
    if not path.exists():
        return []
    table = read_table(path)
    columns = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    missing = [column for column in columns if column not in table]
    if missing:
        raise DxsegError(f"{path}: columns {missing} are missing; expected {columns}")
    return [kind(*row) for row in table[columns].itertuples(index=False)]


def _line(values: tuple[str, ...]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(values)
    return stream.getvalue().encode("utf-8")
