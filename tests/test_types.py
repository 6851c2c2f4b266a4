"""What users are shown passes `mypy --strict`, and what is wrong does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from following import ROOT, blocks

pytestmark = pytest.mark.slow  # of the documentation; make lint checks the package

PAGES = [
    ROOT / "README.md",
    # The guides for contributors hold fragments, which test_guides.py puts in their places.
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "contributing"),
]

MISTAKES = {
    'dxseg.trian("data", output="run")': 'has no attribute "trian"',
    'dxseg.train("data", "run")': "Too many positional arguments",
    'dxseg.train("data", output="run", mask=35)': 'Unexpected keyword argument "mask"',
    'dxseg.train("data", output="run", masks="35")': 'Argument "masks"',
    'dxseg.train("data", output="run", preset="gpu")': 'Argument "preset"',
    'dxseg.predict("model", ["a.png"], output="out", engine="spark")': 'Argument "engine"',
    'dxseg.predict(35, ["a.png"], output="out")': "Argument 1",
    "from dxseg import evalute": 'has no attribute "evalute"',
}

CONFIG = """
[mypy]
strict = true
follow_imports = skip
[mypy-dxseg.*,numpy.*,pandas.*,torch]
follow_imports = silent
"""
"""Without the types of other libraries, whose reading takes a minute: not they are tested."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[str]]:
    """What mypy says, of the mistakes and of all else, in one run."""
    folder = tmp_path_factory.mktemp("typed")
    config = folder / "mypy.ini"
    config.write_text(CONFIG, encoding="utf-8")
    mistakes = folder / "mistakes.py"
    mistakes.write_text("\n".join(["import dxseg", "", *MISTAKES]), encoding="utf-8")
    files = [mistakes]
    for page in PAGES:
        steps = [b.text for b in blocks(page) if b.language == "python" and not b.title]
        if steps:
            name = page.relative_to(ROOT).with_suffix("").as_posix().replace("/", "_")
            files.append(folder / f"{name.replace('-', '_')}.py".lower())
            files[-1].write_text("\n".join(steps), encoding="utf-8")
    assert len(files) > 9
    options = ["--no-error-summary", "--config-file", config, "--cache-dir", folder / "cache"]
    command = list(map(str, [sys.executable, "-m", "mypy", *options, *files]))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return {
        of_mistakes: [line for line in lines if (f"{mistakes.name}:" in line) is of_mistakes]
        for of_mistakes in (True, False)
    }


def test_python_of_the_documentation_has_no_mistakes(told: dict[bool, list[str]]) -> None:
    assert told[False] == []


def test_mistakes_are_errors(told: dict[bool, list[str]]) -> None:
    for number, expected in enumerate(MISTAKES.values(), 3):
        found = [line for line in told[True] if f":{number}: error: " in line and expected in line]
        assert found, told[True]
