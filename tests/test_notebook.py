"""The notebook is the tutorial with what it printed; `tests/test_docs_site.py` runs its steps."""

from __future__ import annotations

import importlib.util
import re

import nbformat
import pytest

from following import ROOT, blocks

FOLDER = ROOT / "docs" / "tutorial"


def _module():
    spec = importlib.util.spec_from_file_location("notebook", FOLDER / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kept() -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / "phantoms-notebook.ipynb", as_version=4)


def test_the_notebook_is_that_of_the_page(kept):
    """`python docs/tutorial/notebook.py` writes it."""
    made = _module().notebook((FOLDER / "phantoms.md").read_text(encoding="utf-8"))
    ours, theirs = (
        [(cell["cell_type"], cell["source"]) for cell in one["cells"]] for one in (made, kept)
    )
    assert ours == theirs


def test_its_cells_are_the_steps_of_the_page_in_their_order(kept):
    steps = blocks(FOLDER / "phantoms.md")
    assert _module().code_of(kept) == [
        ("%%sh\n" if step.language == "sh" else "") + step.text.strip("\n") for step in steps
    ]
    nbformat.validate(kept)


def test_every_cell_was_run_in_order_and_without_an_error(kept):
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}
    printed = "".join(output.get("text", "") for output in outputs)
    assert "dice_lesion" in printed
    assert not re.findall(r"/(?:tmp|root|home|work|Users)/", printed), "a folder of a machine"


def test_outputs_stay_while_the_code_is_the_same(kept):
    module, page = _module(), (FOLDER / "phantoms.md").read_text(encoding="utf-8")
    reworded = module.notebook(page.replace("# From phantoms to a report", "# Another title"))
    outputs = [
        [cell.get("outputs") for cell in one["cells"]]
        for one in (module.with_outputs_of(reworded, kept), kept)
    ]
    assert outputs[0] == outputs[1]
    with pytest.raises(SystemExit, match="--execute"):
        module.with_outputs_of(module.notebook(page.replace("images=300", "images=30")), kept)


def test_prose_has_no_link_into_the_site():
    made = _module().notebook("See [data](../data.md) and [Python](https://python.org).\n")
    [cell] = made["cells"]
    assert cell["source"] == "See data and [Python](https://python.org)."
