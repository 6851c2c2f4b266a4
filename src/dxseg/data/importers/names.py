"""Names of cases: valid as file names everywhere, unique, and in natural order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_UNFIT = re.compile(r"^[\s.=@+\-＝＠＋－]|[/\\\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
_MAX_BYTES = 190
"""File systems allow 255; numbers, "_merged" and suffixes are added to an id."""


def plain_name(name: str) -> str:
    """Make a valid case id and file name of a text: composed Unicode, no separators.

    Args:
        name: Any text, such as a path without its suffix.

    Returns:
        The text, or its end if it has more than 190 bytes in UTF-8.
    """
    plain = _UNFIT.sub("_", unicodedata.normalize("NFC", name))
    end = plain.encode()[-_MAX_BYTES:].decode(errors="ignore")
    # The end of a long name may start with what a name may not start with.
    return _UNFIT.sub("_", end)


def fold_name(name: str) -> str:
    """Make a key that is the same for names that some file systems take for one.

    Args:
        name: A file name.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def unique_names(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Make names unique by numbers at the end, also where case and Unicode form are ignored.

    Args:
        names: As from `plain_name`.
        taken: Names that are used already.
    """
    numbers: dict[str, int] = {}
    used = {fold_name(name) for name in taken}
    unique = []
    for name in names:
        candidate = name
        while (folded := fold_name(candidate)) in used:
            number = numbers[name] = numbers.get(name, 1) + 1
            candidate = f"{name}_{number}"
        used.add(folded)
        unique.append(candidate)
    return unique


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key for natural order, in which 2 comes before 10.

    Args:
        name: Any text.
    """
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
