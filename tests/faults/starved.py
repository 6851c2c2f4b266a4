"""Commands on a disk that is full, then read-only, then on files that may not be read.

Run as a process in a mount namespace of its own, as root of that namespace without root's right to
read everything; prints one JSON object. See `test_disks.py`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli_results import call

ROOM = "48m"
TINY = [
    *("--set", "data.image_size=32", "--set", "data.batch_size=4"),
    *("--set", "model.backbone=lcnet_050", "--set", "model.decoder_channels=[8, 8, 8, 8, 8]"),
    *("--set", "stage2.steps=2", "--set", "stage2.steps_per_epoch=1"),
    *("--set", "device.accelerator=cpu"),
]

Told = dict[str, tuple[int, str]]


def mounted(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


class Calls:
    """Calls of the command line, with what each ended with."""

    def __init__(self, phantoms: Path, model: Path, disk: Path) -> None:
        self.phantoms, self.model, self.disk = phantoms, model, disk
        self.told: Told = {}

    def call(self, name: str, *words: object) -> None:
        try:
            result = call(*words, columns=500)
            self.told[name] = (result.exit_code, result.output)
        except Exception as error:  # noqa: BLE001 - what no command may end with
            self.told[name] = (1, f"Traceback: {error!r}")

    def all(self, kind: str) -> None:
        images = self.phantoms / "images"
        train = ("train", self.phantoms, "--method", "unet-scratch", "--masks", 6, *TINY)
        self.call(f"import, {kind}", "import", "folder", self.disk / "tree", self.disk / "imported")
        self.call(f"check, {kind}", "check", self.phantoms, "--out", self.disk / "check")
        self.call(
            f"cache, {kind}",
            *train,
            *("--out", self.disk.parent / f"run {kind}"),
            *("--set", f"data.cache_dir={self.disk / 'cache'}"),
        )
        self.call(f"train, {kind}", *train, "--out", self.disk / "run")
        predict = ("predict", self.model, images, "--out", self.disk / "predicted")
        self.call(f"predict, {kind}", *predict)
        self.call(f"split, {kind}", "split", self.phantoms, "--out", self.disk / "splits.csv")


def fill(path: Path, left: int) -> None:
    """Take the room of a disk, all but some bytes."""
    free = shutil.disk_usage(path.parent).free
    path.write_bytes(bytes(max(free - left, 0)))


def main(phantoms: Path, model: Path, disk: Path) -> Told:
    disk.mkdir()
    mounted("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(disk))
    calls = Calls(phantoms, model, disk)
    for number, image in enumerate(sorted((phantoms / "images").iterdir())):
        folder = disk / "tree" / ("benign", "normal")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / image.name)
        mask = phantoms / "masks" / image.name
        for part in range(2 if mask.exists() else 0):  # which the import unites and writes
            shutil.copy(mask, folder / f"{image.stem}_mask_{part}{image.suffix}")
    # Room for folders and small files, not for a cache, a checkpoint or all masks.
    for left in (0, 24_000):
        fill(disk / "filler", left)
        calls.all(f"{left} bytes left")
        (disk / "filler").unlink()
    calls.all("room again")
    state = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    for made in ("imported", "check", "run", "predicted", "cache"):
        shutil.copytree(disk / made, disk.parent / "kept" / made)
        shutil.rmtree(disk / made)
    (disk / "splits.csv").unlink()
    # A second view of it, so that nothing that is open stands in the way.
    view = disk.with_name("read-only disk")
    view.mkdir()
    mounted("--bind", str(disk), str(view))
    mounted("-o", "remount,bind,ro", str(view))
    calls.disk = view
    calls.all("read-only")
    calls.disk = disk
    assert state.keys() >= {path for path in disk.rglob("*") if path.is_file()}
    unreadable(calls)
    return calls.told


def unreadable(calls: Calls) -> None:
    """One file of a copy of the dataset, then its table, then the model, without any rights."""
    folder = calls.disk.with_name("unreadable")
    copy = folder / "dataset"
    shutil.copytree(calls.phantoms, copy, ignore=shutil.ignore_patterns(".cache", "check"))
    image = sorted((copy / "images").iterdir())[0]
    image.chmod(0)
    calls.call("check, unreadable image", "check", copy)
    calls.call(
        "train, unreadable image",
        "train",
        copy,
        "--method",
        "unet-scratch",
        *TINY,
        "--out",
        folder / "run",
    )
    calls.call(
        "predict, unreadable image",
        "predict",
        calls.model,
        copy / "images",
        "--out",
        folder / "some",
    )
    (copy / "cases.csv").chmod(0)
    calls.call("check, unreadable table", "check", copy)
    shutil.copytree(calls.model, folder / "model")
    (folder / "model" / "model.safetensors").chmod(0)
    calls.call(
        "predict, unreadable model",
        "predict",
        folder / "model",
        image.parent,
        "--out",
        folder / "none",
    )
    calls.told["name of the image"] = (0, image.name)


if __name__ == "__main__":
    answers: Any = main(*(Path(word) for word in sys.argv[1:4]))
    sys.stdout.write("\n" + json.dumps(answers))
