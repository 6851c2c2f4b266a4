"""A table to read, and what it is in Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """A value, its 95% interval if it has one, and whether it is the best of its column."""

    value: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table to read: a title, the names of its columns, rows of cells, and a note."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]
    note: str = ""


def to_markdown(tables: Sequence[Table]) -> str:
    """All tables as Markdown; the best of a column is bold."""
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
    """All tables as LaTeX; they need the package booktabs."""
    return "\n".join(_latex_table(table) for table in tables)


def escape_latex(text: str) -> str:
    """The text with every character that LaTeX would act on made harmless."""
    return "".join(_LATEX.get(character, character) for character in text)


def _markdown_cell(cell: Cell) -> str:
    value = _escape_pipe(cell.value)
    value = f"**{value}**" if cell.best else value
    return f"{value} ({_escape_pipe(cell.interval)})" if cell.interval else value


def _escape_pipe(text: str) -> str:
    # HTML is markup in Markdown too, and a line end would end the row.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(text.split())


def _latex_table(table: Table) -> str:
    lines = [
        r"\begin{table}",
        rf"\caption{{{escape_latex(table.title)}. {escape_latex(table.note)}}}",
        rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(escape_latex(name) for name in table.columns) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def _latex_cell(cell: Cell) -> str:
    value = escape_latex(cell.value)
    value = rf"\textbf{{{value}}}" if cell.best else value
    return rf"{value} {{\scriptsize ({escape_latex(cell.interval)})}}" if cell.interval else value
