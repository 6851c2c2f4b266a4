"""Where commands print, and how errors look."""

from __future__ import annotations

from rich.console import Console

from dxseg.io.progress import console as err

__all__ = ["err", "out", "print_error"]

# Paths and labels may contain [brackets] and :colons:, so nothing printed is markup or an emoji.
out = Console(markup=False, emoji=False, highlight=False)


def print_error(message: str) -> None:
    """Print `message` on one line that starts with `error:`."""
    err.print(f"error: {' '.join(message.split())}", style="red", soft_wrap=True)
