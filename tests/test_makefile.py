"""Which torch `make` installs: pip is a script that writes down what it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INDEX = "https://example.org/cpu"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the usual index has them")


def install(
    folder: Path,
    *,
    index: str = INDEX,
    gpu: bool = False,
    reachable: bool = True,
    mixed: bool = False,
):
    """Run the target in an environment without torch; gives the output and pip's arguments."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    programs, asked = folder / "venv" / "bin", folder / "asked"
    programs.mkdir(parents=True)
    scripts = {
        # What is not installed cannot be imported, nor what does not belong together.
        "python": (
            f'[ "$1" = -c ] && {{ [ -f "{asked}" ] && exit {int(mixed)}; exit 1; }}\n'
            f'echo "$@" >> "{asked}"\nexit {int(not reachable)}'
        ),
        "nvidia-smi": f"exit {int(not gpu)}",
    }
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    done = folder / "venv" / ".installed-torch"
    ran = subprocess.run(
        ["make", str(done), f"VENV={folder / 'venv'}", f"TORCH_INDEX={index}"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.is_file()
    return ran.stdout, asked.read_text(encoding="utf-8") if asked.is_file() else ""


@LINUX
def test_without_a_gpu_torch_comes_from_the_index_for_processors(tmp_path):
    said, asked = install(tmp_path)
    assert INDEX in said
    assert asked.startswith(f"-m pip install --index-url {INDEX} ")
    assert asked.split()[-2:] == ["torch", "torchvision"]


@LINUX
def test_an_index_that_cannot_be_reached_is_said_and_ends_nothing(tmp_path):
    said, _ = install(tmp_path, reachable=False)
    assert f"{INDEX} cannot be used; torch comes from the package index" in said


@LINUX
def test_builds_that_do_not_belong_together_are_removed(tmp_path):
    said, asked = install(tmp_path, mixed=True)
    assert "torch comes from the package index" in said
    assert "uninstall" in asked.splitlines()[-1]


@pytest.mark.parametrize("case", [{"gpu": True}, {"index": ""}], ids=["a GPU", "no index"])
def test_otherwise_torch_is_left_to_the_usual_index(tmp_path, case):
    assert install(tmp_path, **case)[1] == ""
