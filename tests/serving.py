"""What tests of the server share: images as they are sent, a server that listens."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from brightness import bright_square
from dxseg.data.table.dataset import Dataset, DatasetSpec

TOKEN = "0123456789abcdef-test"


def png(pixels: np.ndarray | None = None) -> bytes:
    """An image as a client sends it; a bright square of 8 x 8 in 32 x 32 if none is given."""
    stream = io.BytesIO()
    Image.fromarray(bright_square(32, 32)[:, :, 0] if pixels is None else pixels).save(
        stream, format="PNG"
    )
    return stream.getvalue()


def sent(content: bytes, name: str = "image.png") -> dict[str, Any]:
    return {"files": {"file": (name, content)}}


@dataclass(frozen=True)
class Served:
    """A server that listens, in a thread of this process."""

    url: str
    server: Any
    thread: threading.Thread

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "has not happened"
        time.sleep(0.01)


def squares(root: Path, count: int = 4) -> Dataset:
    """A dataset of bright squares of 10 x 15 in 48 x 64, without masks; the last is healthy."""
    (root / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        pixels = np.full((48, 64), 20, np.uint8)
        pixels[10 + number : 20 + number, 30:45] = 240
        Image.fromarray(pixels).save(root / f"images/case{number}.png")
        label = "normal" if number == count - 1 else ""
        rows.append((f"case{number}", f"images/case{number}.png", label, 0.5, 0.5))
    columns = ["case_id", "image", "label", "spacing_y", "spacing_x"]
    spec = DatasetSpec(
        name="squares",
        labels=["normal", "bright"],
        lesion_free=["normal"],
        mask_classes=["class0"],
        spacing_unit="mm",
    )
    return Dataset.create(root, spec, pd.DataFrame(rows, columns=columns))


def volumes(root: Path, slices: int = 6) -> Dataset:
    """A dataset of two volumes, whose slices are `squares`, and an image; rows not in order."""
    rows = []
    (root / "images").mkdir(parents=True)
    for volume in ("left", "right"):
        for number in range(slices):
            pixels = np.full((48, 64), 20, np.uint8)
            if number not in (0, slices - 1):
                pixels[10 + number : 20 + number, 30:45] = 240
            Image.fromarray(pixels).save(root / f"images/{volume}{number}.png")
            rows.append((f"{volume}{number}", f"images/{volume}{number}.png", volume, number))
    rows.reverse()
    Image.fromarray(bright_square(48, 64)[:, :, 0]).save(root / "images/single.png")
    rows.append(("single", "images/single.png", "", None))
    table = pd.DataFrame(rows, columns=["case_id", "image", "volume_id", "slice_index"])
    spec = DatasetSpec(
        name="volumes", labels=["normal", "bright"], lesion_free=["normal"], mask_classes=["class0"]
    )
    return Dataset.create(root, spec, table)
