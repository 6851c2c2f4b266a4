"""Excel workbooks, read by openpyxl in bounded memory.

`pandas.read_excel` would do, but pads every row to the widest and turns dates into times; a
workbook of a few kilobytes may claim 17 billion cells.
"""

from __future__ import annotations

import zipfile
from datetime import datetime, time
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.errors import DxsegError
from dxseg.io.csv_io import make_table

WORKBOOK_SUFFIXES = (".xlsx", ".xlsm")
_CELL_LIMIT = 10_000_000
_BYTE_LIMIT = 2**30
"""Of the unpacked workbook."""


def read_workbook(path: Path) -> pd.DataFrame:
    """Read the one sheet of a workbook that has values, as text.

    Whole numbers have no decimals, dates are ISO 8601, truth values TRUE and FALSE; of formulas
    the value that was last computed is used.

    Args:
        path: The .xlsx or .xlsm file.

    Returns:
        As `dxseg.io.csv_io.read_table`; the index is the row of the sheet.

    Raises:
        DxsegError: openpyxl is not installed, the file is absent, damaged or too large, several
            sheets have values, or the header is wrong.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise DxsegError(
            f"{path}: Excel workbooks need openpyxl; pip install 'dxseg[excel]', or save the sheet "
            "as CSV UTF-8"
        ) from error
    _check_size(path)
    try:
        with path.open("rb") as stream:
            book = load_workbook(stream, read_only=True, data_only=True)
            sheets = {sheet.title: _rows(sheet, path) for sheet in book.worksheets}
    except (DxsegError, MemoryError):
        raise
    except Exception as error:  # openpyxl raises many kinds for a damaged file
        raise DxsegError(f"{path}: not a workbook that can be read ({error})") from error
    filled = [title for title, rows in sheets.items() if rows]
    if len(filled) != 1:
        found = f"the sheets {', '.join(map(repr, filled))} have" if filled else "no sheet has"
        raise DxsegError(
            f"{path}: {found} values; expected one; delete the others, or save the one that is "
            "meant as CSV UTF-8"
        )
    return make_table(sheets[filled[0]], path)


def _check_size(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except FileNotFoundError as error:
        raise DxsegError(f"{path}: no such file; expected a table") from error
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DxsegError(f"{path}: not a workbook that can be read ({error})") from error
    if size > _BYTE_LIMIT:
        raise DxsegError(f"{path}: larger than {_BYTE_LIMIT} bytes; save it as CSV UTF-8")


def _rows(sheet: Any, path: Path) -> list[list[str]]:
    """The rows of a sheet as text, without empty ones at its end."""
    sheet.reset_dimensions()  # what the file claims may be wrong
    rows: list[list[str]] = []
    cells = 0
    last = 0
    for values in sheet.iter_rows(values_only=True):
        cells += len(values) + 1
        if cells > _CELL_LIMIT:
            raise DxsegError(f"{path}: more than {_CELL_LIMIT} cells; save it as CSV UTF-8")
        row = [_text(value) for value in values]
        while row and not row[-1]:
            row.pop()
        rows.append(row)
        last = len(rows) if row else last
    return rows[:last]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime):
        return str(value.date()) if value.time() == time() else value.isoformat(sep=" ")
    return str(value)
