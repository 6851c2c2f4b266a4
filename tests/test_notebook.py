"""The notebook is the tutorial, whose steps `tests/test_docs_site.py` runs."""

from __future__ import annotations

import importlib.util
import json

from following import ROOT, blocks

FOLDER = ROOT / "docs" / "tutorial"


def _module():
    spec = importlib.util.spec_from_file_location("notebook", FOLDER / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_that_of_the_page():
    """`python docs/tutorial/notebook.py` writes it."""
    kept = (FOLDER / "phantoms.ipynb").read_text(encoding="utf-8")
    assert kept == _module().written((FOLDER / "phantoms.md").read_text(encoding="utf-8"))


def test_its_cells_are_the_steps_of_the_page_in_their_order():
    cells = json.loads((FOLDER / "phantoms.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    steps = blocks(FOLDER / "phantoms.md")
    assert code == [
        ("%%sh\n" if step.language == "sh" else "") + step.text.strip("\n") for step in steps
    ]
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_prose_has_no_link_into_the_site():
    module = _module()
    made = module.notebook("See [data](../data.md) and [Python](https://python.org).\n")
    [cell] = made["cells"]
    assert cell["source"] == ["See data and [Python](https://python.org)."]
