"""Lists of labels in one cell: which separator a column uses."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dxseg.errors import DxsegError

SEPARATOR = ";"
"""Separates labels in `cases.csv`."""

_USUAL = (";", "|", ",", "\n")
_RARE = ("/", "+", "&")
"""Occur in names of single labels too, so one of them counts only where no usual one occurs."""

_NOT_AVAILABLE = re.compile(r"(?<![^/])\s*[#<]?n/[ak]>?\s*(?![^/])", re.IGNORECASE)
"""The word for nothing that contains a separator."""

_LIST = re.compile(r"\[(.*)\]", re.DOTALL)


def find_separator(values: Iterable[str], column: str) -> str | None:
    """Find the separator of a column of lists of labels; None where no value has one.

    Args:
        values: Distinct values, without those that mean nothing.
        column: Name of the column, for the error.

    Raises:
        DxsegError: Values have different separators.
    """
    texts = [_unwrap(text) for text in values]
    for marks in (_USUAL, _RARE):
        found = {mark: text for mark in marks for text in reversed(texts) if mark in text}
        if len(found) > 1:
            examples = " and ".join(repr(text) for text in list(found.values())[:2])
            raise DxsegError(
                f"{column}: {examples} separate labels in different ways; give the separator with "
                "--label-separator, or use one in all rows"
            )
        if found:
            return next(iter(found))
    return None


def split_list(text: str, separator: str | None) -> list[str]:
    """Split a list of labels; brackets around it and quotes around labels are removed.

    Args:
        text: The value, such as "a|b" or "['a', 'b']".
        separator: As from `find_separator`.
    """
    inner = _unwrap(text)
    if separator == "/":
        inner = _NOT_AVAILABLE.sub("", inner)
    parts = [inner] if separator is None else inner.split(separator)
    wrapped = inner != text
    return [part.strip().strip("'\"") if wrapped else part.strip() for part in parts]


def _unwrap(text: str) -> str:
    match = _LIST.fullmatch(text.strip())
    return match[1] if match else text
