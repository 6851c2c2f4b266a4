"""Files and functions that a value passes through, for three journeys in tiny runs.

    python benchmarks/journeys.py
    python benchmarks/journeys.py --list

A newcomer who follows a value through the code opens these files and reads these functions:

- a budget of masks, from the command line to the sampler of stage 2;
- a label, from `cases.csv` to the loss of stage 1;
- an image file, until its mask is a PNG file.

Each journey is a real run on a few phantoms. A function of dxseg counts if it passes the value on:
it returns it, stores it in its object, or has called what receives it at the end. What the value is
at each stage is recognized by its content: the budget is a number that occurs nowhere else, then a
table or a set of rows of as many masks as it allows; the label a column, then an index that no
other array has; the image a path, then pixels of a size that no other image has. Functions that
only look at it, such as checks, do not count, nor do comprehensions. `--list` names them all.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image

import dxseg
from command import parser_of
from dxseg.commands.app import run
from dxseg.phantoms.ultrasound import make_phantoms

SOURCES = str(Path(dxseg.__file__).parent)
IMAGES = 40
BUDGET = 0.4375
"""Of 16 masks of lesions in the training cases: 7."""
SIZE = 64
TINY = [
    *(f"data.image_size={SIZE}", "data.batch_size=4", "model.decoder_channels=[8, 8, 8, 8, 8]"),
    *(f"{stage}.{name}=1" for stage in ("stage1", "stage2") for name in ("steps", "warmup_steps")),
]

Carries = Callable[[Any], bool]


class Journey:
    """Records the functions that pass a value on, until `end` is called."""

    def __init__(self, carries: Carries, end: str) -> None:
        self.carries = carries
        self.end = end
        self.functions: set[tuple[str, str]] = set()
        self.ended = False

    def __call__(self, frame: FrameType, event: str, result: Any) -> None:
        """Called by the interpreter whenever a function is called or returns."""
        code = frame.f_code
        if self.ended or not code.co_filename.startswith(SOURCES):
            return
        if event == "call" and code.co_qualname == self.end and self._receives(frame):
            main = sys._current_frames()[threading.main_thread().ident or 0]
            for stack in (_stack(frame), _stack(main)):  # a thread has none of its starter
                self.functions |= {_name(caller.f_code) for caller in stack}
            self.ended = True
        elif event == "return" and not code.co_qualname.endswith(">"):
            made = frame.f_locals.get("self") if code.co_name == "__init__" else result
            if made is not None and self._finds(made):
                self.functions.add(_name(code))

    def _receives(self, frame: FrameType) -> bool:
        code = frame.f_code
        count = code.co_argcount + code.co_kwonlyargcount
        return any(self._finds(frame.f_locals[name]) for name in code.co_varnames[:count])

    def _finds(self, value: Any, depth: int = 5) -> bool:
        """Whether a value is what travels, or holds it."""
        if self.carries(value):
            return True
        return depth > 0 and any(self._finds(part, depth - 1) for part in _parts(value))


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        if frame.f_code.co_filename.startswith(SOURCES):
            yield frame
        frame = frame.f_back


def _name(code: CodeType) -> tuple[str, str]:
    return str(Path(code.co_filename).relative_to(SOURCES)), code.co_qualname


def _parts(value: Any) -> Sequence[Any]:
    """What a container or an object of dxseg holds."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set):
        return list(value)[:100]
    if isinstance(value, torch.nn.Module | type) or not hasattr(value, "__dict__"):
        return []
    if dataclasses.is_dataclass(value) or type(value).__module__.startswith("dxseg"):
        return list(vars(value).values())
    return []


def trace(words: Sequence[str | Path], carries: Carries, end: str) -> set[tuple[str, str]]:
    """Run a command and return the functions of a journey."""
    journey = Journey(carries, end)
    threading.setprofile(journey)
    sys.setprofile(journey)
    try:
        code = run([str(word) for word in words])
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    if code or not journey.ended:
        raise SystemExit(f"{words[0]}: exit code {code}, {end} was reached: {journey.ended}")
    return journey.functions


def budget_journey(folder: Path) -> set[tuple[str, str]]:
    """From `--masks` to the sampler of stage 2."""
    masks = 7

    def carries(value: Any) -> bool:
        if isinstance(value, str | float):
            return value in (BUDGET, str(BUDGET))
        if isinstance(value, pd.DataFrame):
            return "use_mask" in value
        if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == np.int64:
            rows = 1 < len(value) <= 2 * masks and len(set(value)) == len(value)
            return rows and bool(value.max() < IMAGES)  # areas of lesions are larger
        return False

    words = ["train", folder / "data", "--masks", str(BUDGET), "--method", "unet"]
    return trace([*words, *_tiny(folder / "unet")], carries, "StratifiedBatchSampler.__init__")


def label_journey(folder: Path) -> set[tuple[str, str]]:
    """From the column `label` to the loss of stage 1."""
    rare = range(17, 20)

    def carries(value: Any) -> bool:
        if isinstance(value, pd.DataFrame):
            return "label" in value
        if isinstance(value, torch.Tensor):
            value = value.detach().numpy()
        if not isinstance(value, np.ndarray) or value.dtype.kind != "i" or value.ndim != 1:
            return False
        return len(value) > 1 and set(value.tolist()) <= {-1, *rare} and bool((value > 0).any())

    words = ["train", folder / "data", "--method", "sks"]
    return trace([*words, *_tiny(folder / "sks")], carries, "LabelLoss.forward")


def image_journey(folder: Path) -> set[tuple[str, str]]:
    """From the path of an image to the mask in a PNG file."""
    height, width = 75, 93

    def carries(value: Any) -> bool:
        if isinstance(value, str | Path):
            return Path(value).name == "traveler.png"
        if isinstance(value, np.ndarray | torch.Tensor):
            shape = tuple(value.shape)
            return (height, width) in (shape[:2], shape[-2:]) or shape.count(SIZE) == 2
        return False

    Image.effect_noise((width, height), 64).save(folder / "traveler.png")
    model, image = folder / "sks", folder / "traveler.png"
    words = ["predict", model, image, "--out", folder / "out", "--no-overlays"]
    return trace(words, carries, "write_mask_png")


def _tiny(output: Path) -> list[str | Path]:
    return ["--out", output, *(word for value in TINY for word in ("--set", value))]


def make_data(folder: Path) -> None:
    """Phantoms under 20 labels, of which three occur: their indices are in no other array."""
    make_phantoms(folder, images=IMAGES, size=SIZE)
    spec = yaml.safe_load((folder / "dataset.yaml").read_text())
    spec |= {"labels": [f"finding {i}" for i in range(20)], "lesion_free": ["finding 17"]}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(spec))
    cases = pd.read_csv(folder / "cases.csv")
    names = {"normal": "finding 17", "benign": "finding 18", "malignant": "finding 19"}
    cases.assign(label=cases["label"].map(names)).to_csv(folder / "cases.csv", index=False)


JOURNEYS = {
    "a budget of masks to the sampler": budget_journey,
    "a label to the loss of stage 1": label_journey,
    "an image file to its mask PNG": image_journey,
}


def main(words: Sequence[str] | None = None) -> dict[str, list[int]]:
    """Print the counts, and as JSON; returns [files, functions] of each journey."""
    parser = parser_of(__doc__)
    parser.add_argument("--list", action="store_true", help="name the files and functions")
    options = parser.parse_args(words)
    counts: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_data(folder / "data")
        for title, travel in JOURNEYS.items():
            functions = travel(folder)
            files = {file for file, _ in functions}
            counts[title] = [len(files), len(functions)]
            if options.list:
                print(title, *(f"  {file}: {name}" for file, name in sorted(functions)), sep="\n")
    for title, (files, functions) in counts.items():
        print(f"{title}: {files} files, {functions} functions")
    print(json.dumps({"benchmark": "journeys", **counts}))
    return counts


if __name__ == "__main__":
    main()
