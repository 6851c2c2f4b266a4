"""Errors in a table of cases, collected so that one message lists them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dxseg.errors import DxsegError
from dxseg.io.remote import redact

_LISTED = 10
Flags = npt.NDArray[np.bool_]


class CaseErrors:
    """Collects wrong values: counts all, keeps the first few for the message."""

    def __init__(self, source: Path, table: pd.DataFrame, lines: npt.NDArray[np.int64]) -> None:
        self.source, self.table, self.lines = source, table, lines
        self.count = 0
        self.listed: list[tuple[int, str]] = []

    def add(self, wrong: Flags, column: str, advice: str) -> None:
        """Add every row where `wrong` is true as an error in `column`."""
        positions = np.flatnonzero(wrong)
        self.count += len(positions)
        for position in positions[:_LISTED]:
            line = int(self.lines[position])
            value = redact(str(self.table[column].iloc[position]))[:80]
            self.listed.append((line, f"row {line}, column {column}, value {value!r}: {advice}"))

    def raise_if_any(self) -> None:
        """Raise an error that lists the first wrong values, in the order of their lines."""
        if not self.count:
            return
        shown = [text for _, text in sorted(self.listed)[:_LISTED]]
        if self.count > len(shown):
            shown.append(f"... and {self.count - len(shown)} more")
        raise DxsegError("\n  ".join([f"{self.source}: {self.count} wrong value(s)", *shown]))
