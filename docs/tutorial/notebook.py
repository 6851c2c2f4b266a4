"""Write docs/tutorial/phantoms.ipynb, the tutorial as a notebook, from docs/tutorial/phantoms.md.

python docs/tutorial/notebook.py

The page is the source: tests run its commands and its Python. Notebooks are written here without a
library, since one of prose and code is a list of cells.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("phantoms.md")
CODE = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = "%%sh\n"


def notebook(page: str) -> dict[str, Any]:
    """The cells of a page, in nbformat 4.5: prose, shell and Python in their order."""
    cells: list[dict[str, Any]] = []
    prose, *rest = CODE.split(page)
    _add(cells, "markdown", _prose(prose))
    for language, code, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        _add(cells, "code", (SHELL if language == "sh" else "") + code)
        _add(cells, "markdown", _prose(text))
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def _prose(text: str) -> str:
    """Links to other pages lead nowhere from a notebook: their words stay."""
    return re.sub(r"\[([^\]]+)\]\((?!https?://)[^)]*\)", r"\1", text)


def _add(cells: list[dict[str, Any]], kind: str, text: str) -> None:
    if not text.strip():
        return
    cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{len(cells)}", "metadata": {}}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    cells.append(cell | {"source": text.strip("\n").splitlines(keepends=True)})


def written(page: str) -> str:
    """The file of the notebook."""
    return json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    text = written(PAGE.read_text(encoding="utf-8"))
    PAGE.with_suffix(".ipynb").write_text(text, encoding="utf-8")
