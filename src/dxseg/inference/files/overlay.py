"""Overlays: outlines of masks over an image."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dxseg.errors import DxsegError
from dxseg.inference.files.png import write_png

if TYPE_CHECKING:  # `dxseg check` draws without a network
    from dxseg.inference.model_info import ModelInfo
    from dxseg.inference.pipeline import Prediction

# Orange, green, purple, ... against sky blue for the reference: color-blind readers can tell them
# apart (Okabe & Ito, "Color Universal Design", 2008).
PREDICTION_COLORS = ((230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0))
TRUTH_COLOR = (86, 180, 233)


def write_overlay_png(
    path: str | Path,
    image: NDArray[np.uint8] | NDArray[np.uint16],
    mask: NDArray[np.uint8],
    *,
    caption: str = "",
) -> None:
    """Write what `render_overlay` draws, as a PNG.

    Args:
        path: File to write, atomically.
        image: (H, W, C).
        mask: (H, W).
        caption: One line.
    """
    write_png(path, render_overlay(image, mask, caption=caption))


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
        mask: (H, W) predicted label map, one color per class.
        truth: (H, W) reference label map, drawn first in sky blue.
        caption: One line over the bottom edge; omitted if the image is too small.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DxsegError: Image and masks differ in size.
    """
    canvas = display_rgb(image)
    for name, drawn in (("mask", mask), ("truth", truth)):
        if drawn is not None and drawn.shape != canvas.shape[:2]:
            raise DxsegError(f"overlay: {name} is {drawn.shape}, the image {canvas.shape[:2]}")
    if truth is not None:
        canvas[_outline(truth)] = TRUTH_COLOR
    for value in np.unique(mask[mask > 0]):
        color = PREDICTION_COLORS[(int(value) - 1) % len(PREDICTION_COLORS)]
        canvas[_outline(mask == value)] = color
    return _with_caption(canvas, caption) if caption else canvas


def display_rgb(image: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Convert an image of any channels and bit depth to RGB for display.

    Three channels are taken as red, green, blue; otherwise the first is shown as gray.
    16 bit is stretched from its 0.5 to its 99.5 percentile, for viewing only.

    Args:
        image: (H, W, C) 8 or 16 bit.

    Returns:
        (H, W, 3) uint8, a copy.
    """
    shown = image if image.shape[2] == 3 else np.repeat(image[:, :, :1], 3, axis=2)
    if shown.dtype == np.uint8:
        return shown.astype(np.uint8, copy=True)
    low, high = np.percentile(shown.astype(np.float32), (0.5, 99.5))
    scaled = (shown.astype(np.float32) - low) * (255.0 / max(float(high - low), 1.0))
    rounded: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return rounded


def _outline(mask: NDArray[np.uint8] | NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Inner boundary of the foreground, thicker on large images, which are shown smaller."""
    outline = np.zeros(mask.shape, bool)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if rows.size == 0:
        return outline
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inside = mask[box] > 0
    outline[box] = inside & ~_eroded(inside, max(1, round(min(mask.shape) / 256)))
    return outline


def _eroded(inside: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Erode by a square of side 2 * radius + 1; pixels beyond the edge count as outside."""
    for _ in range(2):
        # Outside, so that a lesion that touches the image edge is outlined there too.
        padded = np.pad(inside, ((radius, radius), (0, 0)))
        moved = [padded[start : start + len(inside)] for start in range(2 * radius + 1)]
        inside = reduce(np.logical_and, moved).T
    return inside


def _with_caption(canvas: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    drawn_image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(drawn_image, "RGBA")
    font = ImageFont.load_default(size=min(max(9, drawn_image.height // 24), 40))
    left, top, right, bottom = draw.textbbox((0, 0), caption, font=font)
    height = int(bottom - top) + 4
    if right - left + 6 > drawn_image.width or height * 4 > drawn_image.height:
        return canvas
    y = drawn_image.height - height
    draw.rectangle((0, y, drawn_image.width, drawn_image.height), fill=(0, 0, 0, 170))
    draw.text((3 - left, y + 2 - top), caption, font=font, fill=(255, 255, 255, 255))
    return np.array(drawn_image)


def caption_of(prediction: Prediction, info: ModelInfo) -> str:
    """Caption of an overlay: the label prompt, or the likeliest label; all likely ones of several.

    Args:
        prediction: For the image.
        info: Of the model.
    """
    if prediction.label_prompt:
        return f"known: {prediction.label_prompt}"
    ranked = sorted((prediction.label_probabilities or {}).items(), key=lambda pair: -pair[1])
    shown = [pair for pair in ranked if pair[1] >= 0.5] if info.multi_label else ranked[:1]
    return ", ".join(f"{label} {value:.2f}" for label, value in shown)
