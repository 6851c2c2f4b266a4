"""Tables that users made: CSV as spreadsheets save it, and Excel workbooks.

Files of dxseg itself are read by `dxseg.io.csv_io.read_table`, which guesses nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dxseg.errors import DxsegError
from dxseg.io.csv_io import read_table
from dxseg.io.workbooks import WORKBOOK_SUFFIXES, read_workbook

_SEPARATORS = (",", ";", "\t", "|")
_HEADER_LIMIT = 2**20
_OTHER_SUFFIXES = (".xls", ".xlsb", ".ods", ".numbers")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_QUOTED = re.compile(r'"[^"]*"')
_SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)


def read_user_table(path: Path) -> pd.DataFrame:
    """Read a table that a user made, as text.

    Args:
        path: An Excel workbook (.xlsx, .xlsm), or text in UTF-8 or UTF-16 with a header row, its
            values separated by commas, semicolons, tabs or "|".

    Returns:
        As `read_table`; blanks around the names of columns are removed.

    Raises:
        DxsegError: As `read_table`, or the workbook cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in _OTHER_SUFFIXES:
        raise DxsegError(f"{path}: {suffix} is not read; save it as .xlsx or as CSV UTF-8")
    if suffix in WORKBOOK_SUFFIXES:
        return read_workbook(path)
    form = _detect_form(path)
    return read_table(
        path, separator=form.separator, encoding=form.encoding, skipped_lines=form.skipped_lines
    )


@dataclass(frozen=True)
class _Form:
    """How a text file holds a table."""

    separator: str = ","
    encoding: str = "utf-8-sig"
    skipped_lines: int = 0


def _detect_form(path: Path) -> _Form:
    """Detect encoding and separator; where the file cannot be read, `read_table` says why."""
    try:
        if not path.is_file():
            return _Form()
        with path.open("rb") as stream:
            start = stream.read(_HEADER_LIMIT)
    except OSError:
        return _Form()
    if start.startswith(b"PK\x03\x04"):
        raise DxsegError(f"{path}: an archive, not a table; a workbook's name ends in .xlsx")
    encoding = "utf-16" if start.startswith(_UTF16) else "utf-8-sig"
    lines = start.decode(encoding, errors="replace").splitlines()
    header = lines[0] if lines else ""
    # Excel's own hint, which it does not show.
    if hint := _SEPARATOR_LINE.fullmatch(header):
        return _Form(hint[1], encoding, skipped_lines=1)
    unquoted = _QUOTED.sub("", header)
    return _Form(max(_SEPARATORS, key=unquoted.count), encoding)
