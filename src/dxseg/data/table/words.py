"""Words in tables that people made: which mean nothing, and one spelling for each name.

R writes NA for a missing value, pandas nan, Excel #N/A; a column of integers with a gap becomes
1.0, 2.0. Read as they stand, these would be classes, or one patient on one side of a split.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_NOTHING = frozenset(
    {
        *("na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "#nan", "-nan", "nat", "n/k"),
        *("none", "null", "#null!", "nil", "unknown", "unk", "undefined", "empty", "blank"),
        *("anonymous", "anonymized", "anonymised", "anon"),
        *("missing", "not available", "not applicable", "not known", "no data"),
    }
)
_ONLY_MARKS = re.compile(r"[?.\-–—_*\s]*")
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)[.,]0+")
_BLANKS = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_LISTED = 10


def is_missing(text: str, further: Collection[str] = ()) -> bool:
    """Whether a value of a table is a word for nothing, such as "", "NA", "unknown" or "?".

    Args:
        text: The value.
        further: More words that mean nothing, in any case.
    """
    plain = " ".join(text.casefold().split())
    return (
        plain in _NOTHING
        or _ONLY_MARKS.fullmatch(plain) is not None
        or any(plain == word.strip().casefold() for word in further)
    )


def spelling_key(text: str) -> str:
    """Make a key that is the same for names that differ in case, blanks, Unicode form or ".0".

    Args:
        text: A label or a patient.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf").strip()
    if number := _WHOLE_NUMBER.fullmatch(plain):
        return number[1]
    return _BLANKS.sub("", plain)


@dataclass
class Words:
    """How the values of one column are read, and what was done to them.

    Attributes:
        column: Its name, for notes.
        missing: Words that mean nothing besides the usual ones.
        given: Names that the user has given: they stay as they are, even "none".
        names_shown: Whether notes may contain names; those of patients may not.
        dropped: Number of values of each word for nothing.
        merged: Spellings of each name that has several, and the one that is used.
    """

    column: str
    missing: Sequence[str] = ()
    given: Sequence[str] = ()
    names_shown: bool = True
    dropped: Counter[str] = field(default_factory=Counter)
    merged: dict[str, list[str]] = field(default_factory=dict)

    def spellings(self, values: Iterable[str]) -> Mapping[str, str]:
        """Choose what each distinct value becomes: "" for nothing, else one spelling a name.

        A given name is spelled as given. Else the most frequent spelling is used, the first of
        those that are equally frequent; whole numbers have no decimals.

        Args:
            values: All values of the column, not stripped.
        """
        counts = Counter(values)
        chosen = {name: name for name in self.given}
        given = {spelling_key(name): name for name in reversed(self.given)}
        groups: dict[str, Counter[str]] = {}
        for text, count in counts.items():
            plain = text.strip()
            if plain in chosen:
                continue
            key = spelling_key(plain)
            if key not in given and is_missing(plain, self.missing):
                if plain:
                    self.dropped[plain] += count
                chosen[plain] = ""
            else:
                groups.setdefault(key, Counter())[plain] += count
        for key, found in groups.items():
            name = given.get(key) or _tidy(found.most_common(1)[0][0])
            chosen |= dict.fromkeys(found, name)
            others = [text for text in found if text != name]
            if others:
                self.merged[name] = others
        return {text: chosen[text.strip()] for text in counts}

    def notes(self) -> list[str]:
        """What was done, as lines for the report of an import."""
        lines = []
        if self.dropped:
            words = ", ".join(f"{count} {word!r}" for word, count in self.dropped.most_common())
            lines.append(f"{self.column}: {self.dropped.total()} values mean missing ({words})")
        if self.merged and not self.names_shown:
            spellings = sum(map(len, self.merged.values()))
            return [
                *lines,
                f"{self.column}: {spellings} other spellings of {len(self.merged)} names",
            ]
        for name, others in list(self.merged.items())[:_LISTED]:
            written = ", ".join(map(repr, others[:_LISTED]))
            lines.append(f"{self.column}: {written} read as {name!r}")
        if len(self.merged) > _LISTED:
            lines.append(f"{self.column}: so are spellings of {len(self.merged) - _LISTED} others")
        return lines


def _tidy(name: str) -> str:
    """A name in one Unicode form, with single blanks, and without decimals if a whole number."""
    plain = unicodedata.normalize("NFC", name)
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    if number := _WHOLE_NUMBER.fullmatch(plain):
        return number[1]
    return re.sub(r"[^\S\n]+", " ", plain).strip()
