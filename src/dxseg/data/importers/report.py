"""What an import reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

Progress = Callable[[int, int], None]


class ImportReport(BaseModel):
    """What an import did; the command line prints `notes`.

    Attributes:
        destination: The dataset's folder.
        images: Rows of the table.
        masks: Rows that name a mask file.
        labels: How many rows have each label, by the text in the table; "" is unlabelled.
        channels: The number of image channels that was found.
        volumes: How many volumes the images are slices of.
        merged: Case ids whose several masks were united into one.
        repaired: Masks that were not plain numbers, and how they are understood.
        skipped: Files left out, and why.
        notes: All of it in lines of text.
    """

    destination: Path
    images: int
    masks: int
    labels: dict[str, int]
    channels: int
    volumes: int = 0
    merged: list[str] = []
    repaired: list[tuple[str, str]] = []
    skipped: list[tuple[str, str]] = []
    notes: list[str] = []
