"""Where commands print, and how errors look."""

from __future__ import annotations

import re

from rich.console import Console

from dxseg.io.progress import console as err

__all__ = ["err", "out", "print_error", "printable"]

# Paths and labels may contain [brackets] and :colons:, so nothing printed is markup or an emoji.
out = Console(markup=False, emoji=False, highlight=False)


# Names of files may hold escape sequences that move the cursor or turn the writing.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Escape control characters, but not line breaks: what is printed commands no terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def print_error(message: str) -> None:
    """Print `message` on one line that starts with `error:`."""
    err.print(f"error: {printable(' '.join(message.split()))}", style="red", soft_wrap=True)
