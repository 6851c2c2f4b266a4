"""What users are shown passes `mypy --strict`, and what is wrong does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from following import ROOT, blocks

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


def mypy(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_python_of_the_documentation_has_no_mistakes(tmp_path: Path) -> None:
    files = []
    for page in PAGES:
        steps = [b.text for b in blocks(page) if b.language == "python" and not b.title]
        if steps:
            name = page.relative_to(ROOT).with_suffix("").as_posix().replace("/", "_")
            files.append(tmp_path / f"{name.replace('-', '_')}.py".lower())
            files[-1].write_text("\n".join(steps), encoding="utf-8")
    assert len(files) > 8
    done = mypy(*files)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mistakes_are_errors(tmp_path: Path) -> None:
    page = tmp_path / "mistakes.py"
    page.write_text("\n".join(["import dxseg", "", *MISTAKES]), encoding="utf-8")
    told = mypy(page).stdout.splitlines()
    for number, expected in enumerate(MISTAKES.values(), 3):
        assert any(f":{number}: error: " in line and expected in line for line in told), told
