"""The masks that `dxseg predict` wrote, for an export as COCO."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

from dxseg.data.exporters.coco import CocoImage
from dxseg.data.readers.masks import read_mask
from dxseg.errors import DxsegError
from dxseg.inference.files.output_folder import MASKS, TABLE_FILE
from dxseg.inference.files.table import AREA


def predicted_images(folder: Path) -> tuple[list[CocoImage], list[str], int]:
    """Find the predicted masks of images; label maps of volumes are no images.

    Args:
        folder: Output folder of `dxseg predict`.

    Returns:
        The images, the mask classes, and the number of inputs without the mask of an image.

    Raises:
        DxsegError: The table is damaged.
    """
    table = folder / TABLE_FILE
    try:
        with table.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, csv.Error) as error:
        raise DxsegError(f"{table}: cannot be read ({error}); predict again") from error
    columns = list(rows[0]) if rows else []
    names = [name.removeprefix(f"{AREA}_") for name in columns if name.startswith(f"{AREA}_")]
    classes = names or ["lesion"]
    images, left_out = [], 0
    for row in rows:
        mask = (folder / MASKS / (row.get("name") or "")).with_suffix(".png")
        inside = mask.resolve().is_relative_to(folder.resolve())
        if row.get("status") != "ok" or not row.get(AREA) or not inside:
            left_out += 1
            continue
        load = partial(read_mask, mask, len(classes))
        images.append(CocoImage(row["name"], load, float(row.get("confidence") or 0)))
    return images, classes, left_out
