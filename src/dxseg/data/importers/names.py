"""Names of cases: valid as file names, and in natural order."""

from __future__ import annotations

import re


def plain_name(name: str) -> str:
    """Make a valid case id and file name of a text: at most 190 characters, no separators.

    Args:
        name: Any text, such as a path without its suffix.
    """
    return re.sub(r"^[\s.=@+\-＝＠＋－]|[/\\\x00-\x1f\x7f\x85\u2028\u2029]", "_", name)[-190:]


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key for natural order, in which 2 comes before 10.

    Args:
        name: Any text.
    """
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
