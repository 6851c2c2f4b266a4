"""The page of error messages quotes messages that the code has."""

from __future__ import annotations

import ast
import functools
import re

from following import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
ANY = "…"


@functools.cache
def literals() -> list[str]:
    """Every string of the source and of the Makefile, with `…` for each inserted value."""
    found = [(ROOT / "Makefile").read_text(encoding="utf-8").replace("$(PYTHON)", ANY)]
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else ANY for p in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def quoted() -> list[str]:
    """The first cells of the page's tables."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^\| `(.+)` \| ", text, re.MULTILINE)


def occurs(message: str, texts: list[str]) -> bool:
    """Whether the parts of a message between `…` follow each other within one text."""
    pattern = re.compile(".*".join(map(re.escape, message.split(ANY))), re.DOTALL)
    return any(pattern.search(text) for text in texts)


def test_every_quoted_message_is_one_of_the_code() -> None:
    messages, texts = quoted(), literals()
    assert len(messages) > 30
    assert [message for message in messages if not occurs(message, texts)] == []


def test_a_message_that_the_code_lacks_is_noticed() -> None:
    assert not occurs("no such word … in the code of dxseg, xyzzy", literals())
    assert occurs(f"one {ANY} three", [f"one {ANY}, two and {ANY} three"])
    assert not occurs(f"three {ANY} one", [f"one {ANY}, two and {ANY} three"])
