"""Progress bars on standard error.

`console.quiet = True` hides them, and everything else that dxseg prints while it works.
"""

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

# Paths and labels may contain [brackets] and :colons:, so nothing printed is markup or an emoji.
console = Console(stderr=True, markup=False, emoji=False, highlight=False)

Report = Callable[[int, int], None]
"""Called with the number done and the number of all."""


def progress_bar(console: Console) -> Progress:
    """The look of every bar in dxseg: title, progress, time elapsed, time left."""
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
