"""Full disks, read-only disks, files that may not be read: one line that says so, nothing lost.

A tmpfs of 48 MiB in a mount namespace of its own, so that it needs no rights and leaves no mount.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dxseg.data.table.dataset import Dataset

pytestmark = pytest.mark.slow  # commands on disks of their own, in another process

PRIVATE = [
    *("unshare", "--user", "--map-root-user", "--mount"),
    *("setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"),
]

Told = dict[str, tuple[int, str]]

COMMANDS = ("import", "check", "cache", "train", "predict", "split")


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return False
    words = [*PRIVATE, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("starved")


@pytest.fixture(scope="module")
def told(phantoms: Path, trained: Path, places: Path) -> Told:
    """How each command ended, by command and state of the disk."""
    if not can_mount(places):
        pytest.skip("the system lets nobody mount a tmpfs in a namespace of their own")
    copy = places / "phantoms"
    shutil.copytree(phantoms, copy, ignore=shutil.ignore_patterns(".cache", "check"))
    words = [str(Path(__file__).with_name("starved.py")), copy, trained / "model", places / "disk"]
    helpers = str(Path(__file__).parents[1])
    done = subprocess.run(
        [*PRIVATE, sys.executable, *map(str, words)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([helpers, *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (places / "told.json").write_text(done.stdout.splitlines()[-1])
    answers: Told = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("0 bytes left", ("full", "No space left")),
        ("read-only", ("read-only", "Read-only", "readonly", "unable to open")),
    ],
)
def test_a_disk_that_takes_nothing_is_told_in_a_line(
    told: Told, command: str, state: str, words: tuple[str, ...]
) -> None:
    code, output = told[f"{command}, {state}"]
    assert code == 1, output
    assert "Traceback" not in output
    [line] = [line for line in output.splitlines() if line.startswith("error:")]
    assert any(word in line for word in words), line
    assert "disk" in line, "the place is named"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_is_full_in_the_middle_is_told_too(told: Told, command: str) -> None:
    code, output = told[f"{command}, 24000 bytes left"]
    assert "Traceback" not in output
    assert code in (0, 1), output
    assert (code == 1) == ("error:" in output), output


@pytest.mark.parametrize("command", COMMANDS)
def test_with_room_again_the_same_command_ends_well(told: Told, command: str) -> None:
    code, output = told[f"{command}, room again"]
    assert code == 0, output


def test_what_came_about_is_whole(told: Told, places: Path) -> None:
    kept = places / "kept"
    assert len(Dataset.load(kept / "imported")) == 24
    rows = (kept / "predicted" / "predictions.csv").read_text().splitlines()
    assert len(rows) == 25
    assert all(",ok," in row for row in rows[1:])
    leftovers = [path.name for path in kept.rglob(".*") if path.suffix not in (".lock", "")]
    assert leftovers == []


def test_files_that_may_not_be_read_are_named(told: Told) -> None:
    image = told["name of the image"][1]
    for name, place in {
        "check, unreadable image": image,
        "train, unreadable image": image,
        "predict, unreadable image": image,
        "check, unreadable table": "cases.csv",
        "predict, unreadable model": "model.safetensors",
    }.items():
        code, output = told[name]
        assert code == 1, f"{name}: {output}"
        assert "Traceback" not in output, name
        assert place in output, name
