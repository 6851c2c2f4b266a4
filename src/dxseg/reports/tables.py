"""Tables of an experiment as Markdown and LaTeX.

The LaTeX comes from pandas' Styler. Two things stay our own: Markdown, because
`DataFrame.to_markdown` needs tabulate for what is ten lines here, and the escaping, because
pandas' `escape="latex"` leaves `<`, `>`, `±`, `†` and other characters that our tables have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_"},
    "–": "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "†": r"\textdagger{}",
    "§": r"\S{}",
    "‡": r"\textdaggerdbl{}",
    "−": "$-$",
}


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        value: Text of the value.
        interval: Text of its 95% interval; "" for none.
        best: Whether it is the best of its column, which is set in bold.
    """

    value: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its texts.

    Attributes:
        title: Shown above the table.
        columns: Names of the columns.
        rows: One cell per column.
        note: Shown below the table; "" for none.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]
    note: str = ""


def to_markdown(tables: Sequence[Table]) -> str:
    """Write tables as Markdown.

    Args:
        tables: Written one below the other.
    """
    lines: list[str] = []
    for table in tables:
        lines += [f"**{table.title}**", ""]
        lines.append("| " + " | ".join(_escape_pipe(name) for name in table.columns) + " |")
        lines.append("|---" * len(table.columns) + "|")
        for row in table.rows:
            lines.append("| " + " | ".join(_markdown_cell(cell) for cell in row) + " |")
        lines += ["", table.note, ""] if table.note else [""]
    return "\n".join(lines).rstrip() + "\n"


def to_latex(tables: Sequence[Table]) -> str:
    """Write tables as LaTeX, which needs the package booktabs.

    Args:
        tables: Written one below the other.
    """
    return "\n".join(_latex_table(table) for table in tables)


def escape_latex(text: str) -> str:
    """Escape every character that LaTeX interprets.

    Args:
        text: Plain text.
    """
    return "".join(_LATEX.get(character, character) for character in text)


def _markdown_cell(cell: Cell) -> str:
    value = _escape_pipe(cell.value)
    value = f"**{value}**" if cell.best else value
    return f"{value} ({_escape_pipe(cell.interval)})" if cell.interval else value


def _escape_pipe(text: str) -> str:
    # HTML is markup in Markdown too, and a line break would end the row.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(text.split())


def _latex_table(table: Table) -> str:
    frame = pd.DataFrame(
        [[_latex_cell(cell) for cell in row] for row in table.rows],
        columns=[escape_latex(name) for name in table.columns],
    )
    return frame.style.hide(axis="index").to_latex(
        hrules=True,
        column_format="l" * len(table.columns),
        caption=f"{escape_latex(table.title)}. {escape_latex(table.note)}",
    )


def _latex_cell(cell: Cell) -> str:
    value = escape_latex(cell.value)
    value = rf"\textbf{{{value}}}" if cell.best else value
    return rf"{value} {{\scriptsize ({escape_latex(cell.interval)})}}" if cell.interval else value
