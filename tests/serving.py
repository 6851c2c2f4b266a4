"""What tests of the server share: images as they are sent, a server that listens."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from brightness import bright_square

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
