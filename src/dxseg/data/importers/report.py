"""The report of an import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

Progress = Callable[[int, int], None]


class ImportReport(BaseModel):
    """The result of an import; the command line prints `notes`.

    Attributes:
        destination: Folder of the dataset.
        images: Number of rows of the table.
        masks: Number of rows with a mask file.
        labels: Number of rows of each label, as in the table; "" is unlabelled.
        channels: Number of image channels that was found.
        volumes: Number of volumes the images are slices of.
        merged: Ids of cases whose masks were merged into one.
        repaired: Masks that are not plain numbers, and how they are interpreted.
        skipped: Files left out, and why.
        notes: All of it as lines of text.
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

    def __str__(self) -> str:
        return "\n".join([*(f"- {note}" for note in self.notes), f"Dataset: {self.destination}"])
