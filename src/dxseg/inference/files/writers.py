"""Write predictions: mask PNG, overlay PNG, and the resumable table `predictions.csv`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dxseg.errors import DxsegError
from dxseg.inference.files.png import encode_png
from dxseg.io.atomic import atomic_path

# Orange, green, purple, ... against sky blue for the reference: told apart by colour-blind readers
# (Okabe & Ito, "Color Universal Design", 2008).
PREDICTION_COLOURS = ((230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0))
TRUTH_COLOUR = (86, 180, 233)

Row = dict[str, str]


def write_mask_png(path: str | Path, mask: NDArray[np.uint8], classes: int) -> None:
    """Write a label map as an 8-bit grey PNG of the same size.

    Args:
        path: File to write, atomically.
        mask: (H, W) values 0..classes.
        classes: Lesion classes. One: the PNG holds 0 and 255. Several: the label map as it is.

    Raises:
        DxsegError: The mask is not a two-dimensional map of 0..classes.
    """
    if mask.ndim != 2 or mask.size == 0 or int(mask.max()) > classes:
        raise DxsegError(
            f"{path}: a mask must be (H, W) with values 0..{classes}, got {mask.shape}"
        )
    _write_png(path, mask_levels(mask, classes))


def mask_levels(mask: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    """Grey levels of a label map: 0 and 255 for one class, else the class numbers.

    Args:
        mask: (H, W) values 0..classes.
        classes: Lesion classes.
    """
    return (mask > 0).astype(np.uint8) * np.uint8(255) if classes == 1 else mask.astype(np.uint8)


def write_overlay_png(
    path: str | Path,
    image: NDArray[np.uint8] | NDArray[np.uint16],
    mask: NDArray[np.uint8],
    *,
    truth: NDArray[np.uint8] | None = None,
    caption: str = "",
) -> None:
    """Write the image with the outlines of `render_overlay`; arguments are the same.

    Args:
        path: File to write, atomically.
        image: (H, W, C).
        mask: (H, W).
        truth: (H, W).
        caption: One line.
    """
    _write_png(path, render_overlay(image, mask, truth=truth, caption=caption))


def render_overlay(
    image: NDArray[np.uint8] | NDArray[np.uint16],
    mask: NDArray[np.uint8],
    *,
    truth: NDArray[np.uint8] | None = None,
    caption: str = "",
) -> NDArray[np.uint8]:
    """Draw outlines over an image; nothing inside a lesion is covered.

    Args:
        image: (H, W, C) 8 or 16 bit; see `display_rgb`.
        mask: (H, W) predicted label map, one colour a class.
        truth: (H, W) reference label map, drawn first in sky blue.
        caption: One line over the bottom edge; left out where the image is too small for it.

    Returns:
        (H, W, 3) colours.

    Raises:
        DxsegError: Image and masks differ in size.
    """
    canvas = display_rgb(image)
    for name, drawn in (("mask", mask), ("truth", truth)):
        if drawn is not None and drawn.shape != canvas.shape[:2]:
            raise DxsegError(f"overlay: {name} is {drawn.shape}, the image {canvas.shape[:2]}")
    if truth is not None:
        canvas[_outline(truth)] = TRUTH_COLOUR
    for value in np.unique(mask[mask > 0]):
        colour = PREDICTION_COLOURS[(int(value) - 1) % len(PREDICTION_COLOURS)]
        canvas[_outline(mask == value)] = colour
    return _with_caption(canvas, caption) if caption else canvas


def display_rgb(image: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Turn an image of any channels and depth into colours for the eye.

    Three channels are taken as red, green, blue; of any other number the first is shown as grey.
    16 bit is stretched from its 0.5 to its 99.5 percentile, for viewing only.

    Args:
        image: (H, W, C) 8 or 16 bit.

    Returns:
        (H, W, 3), a copy.
    """
    shown = image if image.shape[2] == 3 else np.repeat(image[:, :, :1], 3, axis=2)
    if shown.dtype == np.uint8:
        return shown.astype(np.uint8, copy=True)
    low, high = np.percentile(shown.astype(np.float32), (0.5, 99.5))
    scaled = (shown.astype(np.float32) - low) * (255.0 / max(float(high - low), 1.0))
    rounded: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return rounded


def _outline(mask: NDArray[np.uint8] | NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Inner boundary of the foreground, thicker on larger images so that it survives scaling."""
    outline = np.zeros(mask.shape, bool)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if rows.size == 0:
        return outline
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inside = mask[box] > 0
    outline[box] = inside & ~_eroded(inside, max(1, round(min(mask.shape) / 256)))
    return outline


def _eroded(inside: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Where the square of 2 * radius + 1 around a pixel is inside; beyond the edge nothing is."""
    for _ in range(2):
        # Outside, so that a lesion that touches the image edge is outlined there too.
        padded = np.pad(inside, ((radius, radius), (0, 0)))
        moved = [padded[start : start + len(inside)] for start in range(2 * radius + 1)]
        inside = reduce(np.logical_and, moved).T
    return inside


def _with_caption(canvas: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture, "RGBA")
    font = ImageFont.load_default(size=min(max(9, picture.height // 24), 40))
    left, top, right, bottom = draw.textbbox((0, 0), caption, font=font)
    height = int(bottom - top) + 4
    if right - left + 6 > picture.width or height * 4 > picture.height:
        return canvas
    y = picture.height - height
    draw.rectangle((0, y, picture.width, picture.height), fill=(0, 0, 0, 170))
    draw.text((3 - left, y + 2 - top), caption, font=font, fill=(255, 255, 255, 255))
    return np.array(picture)


def _write_png(path: str | Path, pixels: NDArray[np.uint8]) -> None:
    # Flushing two files an image to disk can cost as much as the network; `predict_files` makes a
    # result that a power cut emptied again.
    with atomic_path(path, flush=False) as temporary:
        temporary.write_bytes(encode_png(pixels))


class PredictionTable:
    """The table of what has been predicted, appended row by row and safe to kill at any time.

    One `write` a row, line end included, so a killed process leaves at most one torn row, at the
    end; `open` drops it.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Name the table; nothing is touched yet.

        Args:
            path: The CSV file.
            columns: Its header, the first being the key.
        """
        self.path = path
        self.columns = tuple(columns)
        self._stream: io.FileIO | None = None

    def open(self, keep: Callable[[Row], bool]) -> None:
        """Rewrite the table with the rows worth keeping, and make it ready for `append`.

        Args:
            keep: Called with every whole row of an existing table.

        Raises:
            DxsegError: The table has other columns, so it was written with another model.
        """
        with (
            atomic_path(self.path) as temporary,
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
        ):
            stream.write(_line(self.columns))
            if self.path.is_file():
                for row in self._rows():
                    if keep(row):
                        stream.write(_line(row.values()))
        self._stream = io.FileIO(os.open(self.path, os.O_WRONLY | os.O_APPEND), "w")

    def append(self, row: Row) -> None:
        """Add one row; it is with the operating system when this returns.

        Args:
            row: Values for all columns.
        """
        assert self._stream is not None, "open() comes first"
        text = _line([row[column] for column in self.columns])
        # File names may hold bytes that are no text; they come back the same.
        self._stream.write(text.encode("utf-8", errors="surrogateescape"))

    def _rows(self) -> Iterator[Row]:
        with self.path.open("rb") as raw:
            raw.seek(0, os.SEEK_END)
            ends_whole = raw.tell() == 0 or (raw.seek(-1, os.SEEK_END), raw.read(1))[1] == b"\n"
        with self.path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            reader = csv.reader(stream)
            header = self._next(reader)
            if header is not None and tuple(header) != self.columns:
                raise DxsegError(
                    f"{self.path}: its columns are {', '.join(header)}; this model writes "
                    f"{', '.join(self.columns)}. Choose another output folder, or overwrite."
                )
            # One row late: the last one counts only if its line end was written.
            previous = None
            while (values := self._next(reader)) is not None:
                if previous is not None and len(previous) == len(self.columns):
                    yield dict(zip(self.columns, previous, strict=True))
                previous = values
            if previous is not None and ends_whole and len(previous) == len(self.columns):
                yield dict(zip(self.columns, previous, strict=True))

    def _next(self, reader: Iterator[list[str]]) -> list[str] | None:
        try:
            return next(reader, None)
        except csv.Error as error:
            raise DxsegError(
                f"{self.path}: not readable as CSV ({error}). Remove it, or overwrite."
            ) from error

    def close(self) -> None:
        """Close the file; the table may be opened again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> PredictionTable:
        """Return itself, to close at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()


def _line(values: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()
