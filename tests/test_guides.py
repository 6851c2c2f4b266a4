"""The guides for contributors, followed to the letter in a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from following import ROOT, Block, blocks, change, command_lines

pytestmark = pytest.mark.slow  # tests of their own, in other processes

GUIDES = sorted((ROOT / "docs" / "contributing").glob("*.md"))
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")


def steps(guide: Path) -> list[Block]:
    return [block for block in blocks(guide) if block.title]


def own_tests(guide: Path) -> list[str]:
    """The tests that a guide ends with, as pytest names them."""
    return [
        f"{block.title.split(',')[0]}::{name}"
        for block in steps(guide)
        if block.title.startswith("tests/")
        for name in re.findall(r"^def (test_\w+)", block.text, re.MULTILINE)
    ]


TESTS = [test for guide in GUIDES for test in own_tests(guide)]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source in which all guides have been followed."""
    root = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "src", root / "src", ignore=IGNORED)
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "tests").mkdir()
    for guide in GUIDES:
        for block in steps(guide):
            change(root, block)
    return root


@pytest.fixture(scope="module")
def outcome(followed: Path) -> str:
    """What pytest says of the guides' own tests there."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "tests"],
        cwd=followed,
        env=os.environ | {"PYTHONPATH": str(followed / "src")},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def test_every_guide_but_the_overview_ends_in_tests() -> None:
    assert [guide.stem for guide in GUIDES if not own_tests(guide)] == ["index"]


@pytest.mark.parametrize("test", TESTS)
def test_the_tests_of_a_guide_pass(outcome: str, test: str) -> None:
    assert re.search(rf"^PASSED {re.escape(test)}", outcome, re.MULTILINE), outcome
    assert not re.search(rf"^(FAILED|ERROR) {re.escape(test)}", outcome, re.MULTILINE), outcome


def test_what_the_guides_add_is_in_the_style_of_the_house(followed: Path) -> None:
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--no-cache", "src", "tests"],
            cwd=followed,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_the_tests_of_a_guide_fail_without_its_changes(followed: Path, tmp_path: Path) -> None:
    """On the skip: all but its module is followed, and its test tells what is missing."""
    root = tmp_path / "half"
    shutil.copytree(ROOT / "src" / "dxseg", root / "src" / "dxseg", ignore=IGNORED)
    guide = next(guide for guide in GUIDES if guide.stem == "skip")
    for block in steps(guide):
        if "network.py" not in block.title:
            change(root, block)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "skips.doubt" in done.stdout


def test_the_guide_to_skips_ends_with_a_training_of_its_method(
    followed: Path, phantoms: Path, tiny: Callable[..., list[str]], tmp_path: Path
) -> None:
    guide = next(guide for guide in GUIDES if guide.stem == "skip")
    *_, last = blocks(guide)
    [words] = command_lines(last.text.replace("--masks 24", "--masks 6"))
    shutil.copytree(phantoms, tmp_path / "phantoms")
    done = subprocess.run(
        [sys.executable, "-m", *words, *map(str, tiny())],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(followed / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    info = json.loads((tmp_path / "runs" / "doubt" / "model" / "model.json").read_text("utf-8"))
    assert info["model"]["skips"]["doubt"]
    assert info["model"]["skips"]["gated"]


@pytest.mark.parametrize("place", ["below: no such line", "below: import numpy as np"])
def test_a_place_that_is_not_there_once_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "a.py").write_text("import numpy as np\nimport numpy as np\n")
    with pytest.raises(AssertionError, match=r"[02] times"):
        change(tmp_path, Block("python", f"a.py, {place}", "x = 1\n"))
