"""The commands and their options, and the tables of them in docs/cli.md.

`python tests/command_tables.py` writes the tables anew; the text around them is written by hand.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cyclopts
import docstring_parser

from dxseg.commands.app import app
from dxseg.commands.options import SlicingOptions

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"


def commands(group: cyclopts.App = app, name: str = "") -> Iterator[tuple[str, cyclopts.App]]:
    """Every command with its name, such as `import folder`."""
    for part in group:
        if part.startswith("-"):
            continue
        command = group[part]
        if command.default_command is not None:
            yield f"{name} {part}".strip(), command
        if any(not sub.startswith("-") for sub in command):
            yield from commands(command, part)


def _options(command: cyclopts.App) -> list[cyclopts.Argument]:
    arguments = command.assemble_argument_collection(default_parameter=app.default_parameter)
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    return [one for one in arguments if one.field_info.kind is keyword_only and one.parse]


def function(command: cyclopts.App) -> Any:
    """The function that a command is."""
    return command.default_command


def options(command: cyclopts.App) -> dict[str, Any]:
    """Default by option; positional arguments have none of their own."""
    return {
        name: argument.field_info.default
        for argument in command.assemble_argument_collection(
            default_parameter=app.default_parameter
        )
        if argument.field_info.kind is inspect.Parameter.KEYWORD_ONLY and argument.parse
        for name in argument.names
    }


def option_table(command: cyclopts.App) -> str:
    """The options of a command as a Markdown table; empty without options."""
    documented = {
        entry.arg_name: " ".join((entry.description or "").split())
        for docstring in (function(command).__doc__, SlicingOptions.__doc__)
        for entry in docstring_parser.parse(docstring or "").params
    }
    rows = []
    for argument in _options(command):
        field = argument.field_info
        meaning = documented[field.name].replace("|", "\\|")
        choices = (
            re.findall(r"'([^']+)'", str(argument.hint)) if "Literal" in str(argument.hint) else []
        )
        if choices and not all(f"`{choice}`" in meaning for choice in choices):
            meaning += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
        default = "required" if field.required else _shown(field.default)
        rows.append(f"| `{argument.name}` | {default} | {meaning} |")
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows]) if rows else ""


def _shown(default: Any) -> str:
    if default in (None, inspect.Parameter.empty, (), ""):
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return f"`{', '.join(map(str, default)) if isinstance(default, tuple) else default}`"


def sections(text: str) -> dict[str, str]:
    """The sections of the page by command."""
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0].removeprefix("dxseg "): part for part in parts}


def updated(text: str) -> str:
    """The page with new tables."""
    for name, command in commands():
        section = sections(text)[name]
        table = option_table(command)
        old = re.search(r"^\|.*\|$(\n^\|.*\|$)*", section, flags=re.MULTILINE)
        if old is None:
            new = section.rstrip("\n") + (f"\n\n{table}" if table else "") + "\n\n"
        else:
            new = section.replace(old[0], table)
        text = text.replace(f"## {section}", f"## {new}")
    return text.rstrip("\n") + "\n"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
