"""Write the tutorial as a notebook, docs/tutorial/phantoms-notebook.ipynb, from phantoms.md.

python docs/tutorial/notebook.py            # new prose; outputs stay, as long as no code changes
python docs/tutorial/notebook.py --execute  # run all of it, about twelve minutes

The page is the source: tests run its commands and its Python. The site shows the notebook with what
its cells printed.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

PAGE = Path(__file__).with_name("phantoms.md")
NOTEBOOK = PAGE.with_name("phantoms-notebook.ipynb")
CODE = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = "%%sh\n"
STYLE, BAR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]"), "━"


def notebook(page: str) -> nbformat.NotebookNode:
    """The cells of a page, prose, shell and Python in their order, not executed."""
    prose, *rest = CODE.split(page)
    cells = [new_markdown_cell(_prose(prose))]
    for language, code, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        cells.append(new_code_cell((SHELL if language == "sh" else "") + code.strip("\n")))
        cells.append(new_markdown_cell(_prose(text)))
    cells = [cell for cell in cells if cell["source"]]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    return new_notebook(cells=cells)


def _prose(text: str) -> str:
    """Links to other pages lead nowhere from a notebook: their words stay."""
    return re.sub(r"\[([^\]]+)\]\((?!https?://)[^)]*\)", r"\1", text).strip("\n")


def code_of(book: nbformat.NotebookNode) -> list[str]:
    """The source of each cell of code."""
    return [cell["source"] for cell in book["cells"] if cell["cell_type"] == "code"]


def with_outputs_of(
    book: nbformat.NotebookNode, executed: nbformat.NotebookNode
) -> nbformat.NotebookNode:
    """Take over what the same code has printed.

    Raises:
        SystemExit: The code is another.
    """
    if code_of(book) != code_of(executed):
        raise SystemExit("the code has changed: run it again, with --execute")
    printed = (cell for cell in executed["cells"] if cell["cell_type"] == "code")
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            cell |= {key: value for key, value in next(printed).items() if key != "id"}
    return book


def execute(book: nbformat.NotebookNode) -> None:
    """Run the cells in an empty folder; what depends on the run alone is not kept."""
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder).resolve())
        resources = {"metadata": {"path": place}}
        NotebookClient(book, timeout=None, resources=resources, record_timing=False).execute()
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = printed(cell["outputs"], place)
    book["metadata"] = {}  # which kernel and version of Python it was


def printed(outputs: list[nbformat.NotebookNode], place: str) -> list[nbformat.NotebookNode]:
    """What a terminal shows at the end: each stream as one text, without bars of progress.

    Args:
        outputs: Of a cell.
        place: The folder it ran in.
    """
    kept = [output for output in outputs if output["output_type"] != "stream"]
    for name in ("stderr", "stdout"):
        parts = [output["text"] for output in outputs if output.get("name") == name]
        lines = STYLE.sub("", "".join(parts).replace(place, "FOLDER")).splitlines()
        if name == "stderr":
            lines = [line for line in lines if line.strip() and BAR not in line]
        if lines:
            text = "\n".join(line.rstrip() for line in lines).strip("\n")
            kept.insert(0, new_output("stream", name=name, text=f"{text}\n"))
    return kept


def main() -> None:
    """Write the notebook beside its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--execute", action="store_true", help="run the code")
    book = notebook(PAGE.read_text(encoding="utf-8"))
    if parser.parse_args().execute:
        execute(book)
    else:
        book = with_outputs_of(book, nbformat.read(NOTEBOOK, as_version=4))
    nbformat.write(book, NOTEBOOK)


if __name__ == "__main__":
    main()
