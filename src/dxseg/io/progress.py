"""How long jobs show how far they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Report = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


def progress_bar(console: Console) -> Progress:
    """The look of every bar in dxseg: what, how far, elapsed, left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


@contextmanager
def reporting(console: Console, title: str) -> Iterator[Report]:
    """A bar for a job that reports (done, total); it appears with the first report."""
    with progress_bar(console) as bar:
        task = bar.add_task(title, total=None, note="", visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
