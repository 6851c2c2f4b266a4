"""What a command reports to its progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def on_progress(report: Callable[[int, int], object]) -> Iterator[None]:
    """Call a function with (done, total), in place of the progress bar."""

    @contextmanager
    def reporting(console: object, title: str) -> Iterator[Callable[[int, int], object]]:
        yield report

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dxseg.io.progress.reporting", reporting)
        yield
