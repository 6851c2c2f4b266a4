"""An import killed at any moment leaves no dataset, and the same import then completes it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from dxseg.commands.import_nnunet import import_nnunet
from dxseg.commands.imports import import_folder
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError

IMAGES = 40
# Children are killed after a share of the time that a whole import takes; imported once, forked
# often, so that the kill falls into the work and not into loading libraries.
SCRIPT = """
import importlib, os, signal, sys, time
import dxseg.data.importers.folder, dxseg.data.importers.nnunet, dxseg.io.progress
module, verb, source, out = sys.argv[1:5]
run = getattr(importlib.import_module(module), verb)
from PIL import PngImagePlugin
import tifffile

def child(destination):
    pid = os.fork()
    if pid == 0:
        run(source, destination)
        os._exit(0)
    return pid

start = time.monotonic()
os.waitpid(child(out + "/whole"), 0)
whole = time.monotonic() - start
for number, share in enumerate(sys.argv[5:]):
    pid = child(f"{out}/killed{number}")
    time.sleep(float(share) * whole)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


def write_folder(root: Path) -> Path:
    """Images of two labels with two masks each, which the import unites and writes."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        folder = root / "source" / ("benign", "malignant")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{number}.png")
        for part in range(2):
            mask = (image % (part + 2) == 0) * np.uint8(255)
            Image.fromarray(mask).save(folder / f"{number}_mask_{part}.png")
    return root / "source"


def write_raw(root: Path) -> Path:
    """A raw dataset of nnU-Net with two channels, which the import stacks and writes."""
    rng = np.random.default_rng(0)
    source = root / "source"
    for name in ("imagesTr", "labelsTr"):
        (source / name).mkdir(parents=True)
    for number in range(IMAGES):
        for channel in range(2):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(source / "imagesTr" / f"{number}_{channel:04d}.png")
        Image.fromarray(pixels // 128).save(source / "labelsTr" / f"{number}.png")
    description = {
        "channel_names": {"0": "a", "1": "b"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": IMAGES,
        "file_ending": ".png",
    }
    (source / "dataset.json").write_text(json.dumps(description))
    return source


def content(folder: Path) -> dict[str, bytes | list[object]]:
    """Bytes of the files that are shown; pixels of TIFFs, whose header has the time."""
    return {
        path.relative_to(folder).as_posix(): (
            tifffile.imread(path).tolist() if path.suffix == ".tif" else path.read_bytes()
        )
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.mark.parametrize("kills", [4, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("run", "write"), [(import_folder, write_folder), (import_nnunet, write_raw)]
)
def test_a_killed_import_is_none_and_can_be_completed(
    tmp_path: Path, run: Callable[..., object], write: Callable[[Path], Path], kills: int
) -> None:
    source = write(tmp_path)
    before = content(source)
    (tmp_path / "out").mkdir()
    draw = random.Random(0)
    shares = [str(draw.uniform(0, 1.1)) for _ in range(kills)]
    words = [run.__module__, run.__name__, str(source), str(tmp_path / "out"), *shares]
    subprocess.run([sys.executable, "-c", SCRIPT, *words], check=True, timeout=300)
    expected = content(tmp_path / "out" / "whole")
    assert len(Dataset.load(tmp_path / "out" / "whole")) == IMAGES
    unfinished = 0
    for number in range(len(shares)):
        killed = tmp_path / "out" / f"killed{number}"
        if (killed / "dataset.yaml").exists():
            assert content(killed) == expected
            continue
        unfinished += 1
        with pytest.raises(DxsegError):
            Dataset.load(killed)
        run(source, killed)
        assert content(killed) == expected
    assert unfinished >= kills // 3, "the kills came too late to show anything"
    assert content(source) == before
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}
    made = {"whole", *(f"killed{number}" for number in range(len(shares)))}
    assert {path.name for path in (tmp_path / "out").iterdir()} <= made
