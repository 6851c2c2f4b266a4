"""Doing what a page of the documentation says, step by step."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\n]*)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: After the fence.
        title: What the block is, such as the file it belongs to; empty without one.
        text: Its lines.
    """

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(language, title, text) for language, title, text in found]


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


SHORT = [
    word
    for knob in ("steps=4", "steps_per_epoch=2", "warmup_steps=1")
    for word in ("--set", f"student.{knob}")
]
"""Makes the student short: the method that is trained where none is named ends with one."""


def follow(
    page: Path,
    cli: Callable[..., Any],
    train_options: list[str],
    smaller: Mapping[str, str] | None = None,
) -> list[str]:
    """Run every `dxseg` command and every Python block of a page, in the current folder.

    Args:
        page: A page of the documentation.
        cli: Calls the command line.
        train_options: Added to `dxseg train`, to make it short; `SHORT` too, where no method is
        named.
        smaller: Texts of the page and what stands for them here; each must occur.

    Returns:
        Commands that are not dxseg's and were not run.

    Raises:
        AssertionError: A command failed, or a text to replace does not occur.
    """
    steps = [block for block in blocks(page) if not block.title and block.language != "text"]
    whole = "".join(block.text for block in steps)
    assert [old for old in (smaller or {}) if old not in whole] == []
    names: dict[str, Any] = {}
    others = []
    for block in steps:
        text = block.text
        for old, new in (smaller or {}).items():
            text = text.replace(old, new)
        if block.language == "python":
            exec(compile(text, str(page), "exec"), names)
            continue
        assert block.language == "sh", f"{page.name}: a block of {block.language!r} is not followed"
        for words in command_lines(text):
            if words[0] != "dxseg":
                others.append(shlex.join(words))
                continue
            if words[1] == "train":
                words += _shortened(words, train_options)
            result = cli(*words[1:])
            assert result.exit_code == 0, f"{page.name}: {shlex.join(words)}\n{result.output}"
    return others


def _shortened(words: list[str], train_options: list[str]) -> list[str]:
    """What makes a training short, without another backbone where the page names one."""
    options = train_options if "--method" in words else [*SHORT, *train_options]
    if not any(word.startswith("model.backbone=") for word in words):
        return options
    pairs = zip(options[::2], options[1::2], strict=True)
    network = ("model.backbone=", "model.encoder_weights=")
    return [word for pair in pairs if not pair[1].startswith(network) for word in pair]


def change(root: Path, block: Block) -> Path:
    """Make the change to the repository that a titled block of a guide shows.

    Titles say `FILE, new`, `FILE, at the end` or `FILE, below: LINE`.

    Args:
        root: Of a copy of the repository.
        block: Of the guide.

    Returns:
        The file.

    Raises:
        AssertionError: The place does not exist, or more than once.
    """
    name, _, place = block.title.partition(", ")
    path = root / name
    if place == "new":
        assert not path.exists(), f"{name} exists already"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        return path
    text = path.read_text(encoding="utf-8")
    if place == "at the end":
        apart = "\n\n\n" if path.suffix == ".py" else "\n"
        path.write_text(text.rstrip("\n") + apart + block.text, encoding="utf-8")
        return path
    anchor = place.removeprefix("below: ")
    lines = text.splitlines(keepends=True)
    at = [number for number, line in enumerate(lines) if line.strip() == anchor]
    assert len(at) == 1, f"{name}: the line {anchor!r} occurs {len(at)} times"
    lines.insert(at[0] + 1, block.text)
    path.write_text("".join(lines), encoding="utf-8")
    return path
