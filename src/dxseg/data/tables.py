"""Reading CSV files as they are written: text, with the line each row stands on."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from dxseg.errors import DxsegError

_SEPARATORS = (",", ";", "\t")


def separator_of(path: Path) -> str:
    """See in the header what separates values: comma, semicolon or tab.

    Args:
        path: A CSV file; one that cannot be read gives a comma, and `read_table` tells what is
            wrong with it.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            header = stream.readline()
    except (OSError, UnicodeDecodeError):
        return ","
    return max(_SEPARATORS, key=header.count)


def read_table(path: Path, *, separator: str = ",") -> pd.DataFrame:
    """Read any CSV as text, nothing guessed: "NA" stays "NA" and "007" stays "007".

    Args:
        path: A UTF-8 file with a header row; a byte order mark is fine.
        separator: What stands between two values.

    Returns:
        A table of str whose index, named "line", is the 1-based line in the file; empty lines are
        left out.

    Raises:
        DxsegError: The file is absent, empty, not UTF-8, or a row has more values than the header.
    """
    try:
        with warnings.catch_warnings():
            # pandas drops surplus values with no more than a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep=separator,
                dtype=str,
                na_filter=False,
                skip_blank_lines=False,
                index_col=False,
                encoding="utf-8-sig",
            )
    except FileNotFoundError as error:
        raise DxsegError(f"{path}: no such file; expected a table of cases") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise DxsegError(
            f"{path}: not a table ({str(error).strip()}); expected a header row and as many "
            f"values in each row, {separator!r} between them, quotes around values that hold one"
        ) from error
    except UnicodeDecodeError as error:
        raise DxsegError(f"{path}: not UTF-8 ({error}); save it as CSV UTF-8") from error
    except OSError as error:
        raise DxsegError(f"{path}: cannot be read ({error})") from error
    # Rows with fewer values than the header are filled with NaN in spite of na_filter.
    table = table.fillna("")
    table.index = pd.RangeIndex(2, len(table) + 2, name="line")
    blank = (table == "").all(axis=1)
    return table[~blank] if blank.any() else table
