"""The report of an import, and the list of what it left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel

from dxseg.data.readers.images import is_image_name

Progress = Callable[[int, int], None]

_EXAMPLES, _REASONS = 5, 30


class LeftOut(list[tuple[str, str]]):
    """Files that an import leaves out, and why; counts those that are images and masks.

    Attributes:
        images: Number of images among them.
        masks: Number of masks among them.
    """

    images: int = 0
    masks: int = 0

    def image(self, path: str | Path, reason: str) -> None:
        """Add an image."""
        self.images += 1
        self.append((str(path), reason))

    def mask(self, path: str | Path, reason: str) -> None:
        """Add a mask."""
        self.masks += 1
        self.append((str(path), reason))

    def take(self, others: LeftOut) -> None:
        """Add what another list has."""
        self.images += others.images
        self.masks += others.masks
        self.extend(others)

    def file(self, path: Path, reason: str) -> None:
        """Add a file of a type that is not read; its suffix shows whether it is an image."""
        self.images += is_image_name(path)
        self.append((str(path), reason))


class ImportReport(BaseModel):
    """The result of an import; the command line prints `notes`.

    Attributes:
        destination: Folder of the dataset.
        images: Number of rows of the table.
        masks: Number of rows with a mask file.
        labels: Number of rows of each label, as in the table; "" is unlabeled.
        channels: Number of image channels that was found.
        volumes: Number of volumes the images are slices of.
        merged: Ids of cases whose masks were merged into one.
        repaired: Masks that are not plain numbers, and how they are interpreted.
        skipped: Files left out, and why.
        failed: What makes the import incomplete, so that the command ends with exit code 1.
        notes: All of it as lines of text.
        dry_run: Whether nothing was written.
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
    failed: list[tuple[str, str]] = []
    notes: list[str] = []
    dry_run: bool = False

    def __str__(self) -> str:
        end = "Dry run: nothing was written." if self.dry_run else f"Dataset: {self.destination}"
        return "\n".join([*(f"- {note}" for note in self.notes), end])


def describe_left_out(skipped: Sequence[tuple[str, str]], title: str) -> list[str]:
    """Count and name what was left out, in lines of a report; files of one reason share a line.

    Args:
        skipped: Files and reasons.
        title: Beginning of the first line.
    """
    if not skipped:
        return []
    groups: dict[str, list[str]] = defaultdict(list)
    for file, reason in skipped:
        groups[reason].append(file)
    lines = [f"{title}: {len(skipped)}"]
    for reason, files in list(groups.items())[:_REASONS]:
        if len(files) == 1:
            lines.append(f"  {files[0]}: {reason}")
        else:
            more = ", ..." if len(files) > _EXAMPLES else ""
            lines.append(f"  {len(files)} files: {reason}: {', '.join(files[:_EXAMPLES])}{more}")
    if len(groups) > _REASONS:
        rest = sum(len(files) for files in list(groups.values())[_REASONS:])
        lines.append(f"  ... and {rest} others")
    return lines


def failures(left_out: Sequence[tuple[str, str]], masks_used: int) -> list[tuple[str, str]]:
    """Judge what makes an import incomplete.

    Args:
        left_out: Files left out; a `LeftOut` knows which are images and masks.
        masks_used: Number of images or volumes that have a mask.
    """
    found = []
    if isinstance(left_out, LeftOut):
        if left_out.images:
            found.append(
                (f"{left_out.images} images left out", "see the list above; fix or remove them")
            )
        if left_out.masks and not masks_used:
            found.append(
                (f"none of {left_out.masks} masks used", "see the list above for the reasons")
            )
    return found
