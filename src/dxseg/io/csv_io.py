"""Reading CSV files as text, with the line number of each row.

pandas reads the file; this module adds the line numbers, the checks of the header and the errors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dxseg.errors import DxsegError

_BYTE_LIMIT = 2**32
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FORMULA = re.compile(r"[=@＝＠]|[-+－＋](?![\d.]*\Z)")


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would run a cell as a formula instead of showing it.

    It starts with = or @, or with + or - and is not a number or the sign alone; the wide forms of
    these characters count too.

    Args:
        text: The cell.
    """
    return _FORMULA.match(text) is not None


def escape_formula(name: str) -> str:
    """Escape a relative path so that no spreadsheet runs it: "=x.png" becomes "./=x.png".

    Args:
        name: A path with "/".
    """
    return f"./{name}" if is_formula(name) else name


def escape_unprintable(name: str) -> str:
    """Escape what no table should hold: bytes that are not UTF-8, control characters, line breaks.

    Args:
        name: A file name, or text with one.
    """
    plain = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), plain)


def read_table(
    path: Path, *, separator: str = ",", encoding: str = "utf-8-sig", skipped_lines: int = 0
) -> pd.DataFrame:
    """Read a CSV file as text, without guessing types: "NA" stays "NA" and "007" stays "007".

    Args:
        path: A UTF-8 file with a header row; a byte order mark is fine.
        separator: Separator of values.
        encoding: Encoding, if not UTF-8.
        skipped_lines: Number of lines before the header.

    Returns:
        A table of str whose index, named "line", is the 1-based line in the file; empty lines are
        left out, as are columns that have neither a name nor a value.

    Raises:
        DxsegError: The file is absent, empty, too large or not UTF-8; a row has more values than
            the header; or a column has no name, or the name of another column.
    """
    try:
        if path.exists() and not path.is_file():
            raise DxsegError(f"{path}: not a file; expected a table")
        if path.stat().st_size > _BYTE_LIMIT:
            raise DxsegError(f"{path}: larger than {_BYTE_LIMIT} bytes; split the table")
        # The header is read as a row like any other: pandas would rename a second "a" to "a.1".
        # No compression: a small archive may hold a table of any size.
        table = pd.read_csv(
            path,
            sep=separator,
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,
            header=None,
            skiprows=skipped_lines,
            encoding=encoding,
            compression=None,
        )
    except FileNotFoundError as error:
        raise DxsegError(f"{path}: no such file; expected a table of cases") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise DxsegError(
            f"{path}: not a table ({str(error).strip()}); expected a header row and as many "
            f"values in each row, {separator!r} between them, quotes around values that contain one"
        ) from error
    except UnicodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise DxsegError(f"{path}: not {name} ({error}); save it as CSV UTF-8") from error
    except OSError as error:
        raise DxsegError(f"{path}: cannot be read ({error})") from error
    # Rows with fewer values than the header are filled with NaN in spite of na_filter.
    return _with_header(table.fillna(""), path, 1 + skipped_lines)


def make_table(rows: Sequence[Sequence[str]], path: Path) -> pd.DataFrame:
    """Make a table of rows that another reader has read; the first one is the header.

    Args:
        rows: The cells; shorter rows are filled.
        path: The file that they are from, for errors.

    Returns:
        As `read_table`.

    Raises:
        DxsegError: As `read_table`.
    """
    header, *rest = rows
    for line, row in enumerate(rest, 2):
        if len(row) > len(header):
            raise DxsegError(
                f"{path}: row {line} has {len(row)} values, but the header {len(header)}; name "
                "every column that has values"
            )
    filled = [[*row, *[""] * (len(header) - len(row))] for row in rows]
    table = pd.DataFrame(filled, dtype=str)
    return _with_header(table, path, 1)


def _with_header(table: pd.DataFrame, path: Path, header_line: int) -> pd.DataFrame:
    """Name the columns by the first row, number the rows by line, and drop what is empty."""
    header = [str(name).strip() for name in table.iloc[0]]
    table = table.iloc[1:]
    table.columns = pd.Index(header)
    first = header_line + 1
    table.index = pd.RangeIndex(first, len(table) + first, name="line")
    table = table.loc[:, _named(table, path)]
    blank = (table == "").all(axis=1)
    return table[~blank] if blank.any() else table


def _named(table: pd.DataFrame, path: Path) -> list[bool]:
    """Flag the columns that have a name; a name that occurs twice is an error."""
    header = [str(name) for name in table.columns]
    if any("\0" in name for name in header):
        raise DxsegError(f"{path}: its header contains NUL characters; save it as CSV UTF-8")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DxsegError(f"{path}: several columns are named {twice[0]!r}; rename all but one")
    for position, name in enumerate(header):
        if not name and (table.iloc[:, position] != "").any():
            raise DxsegError(f"{path}: column {position + 1} has values but no name; name it")
    return [name != "" for name in header]
