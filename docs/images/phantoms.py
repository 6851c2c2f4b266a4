"""Draw docs/images/phantoms.png: phantoms of each label, plain and with cysts, lesions outlined.

python docs/images/phantoms.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dxseg.phantoms.ultrasound import LABELS, make_phantom

SIZE, COLUMNS, GAP, MARGIN = 128, 6, 4, 90
OUTLINE = (255, 176, 0)
ROWS = [(label, cysts) for cysts in (0.0, 2.0) for label in LABELS]


def outlined(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Image.Image:
    """Give a phantom in color, its lesion with an outline of one pixel."""
    inside = mask.astype(bool)
    padded = np.pad(inside, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    color = np.stack([image] * 3, axis=-1)
    color[inside & ~core] = OUTLINE
    return Image.fromarray(color)


def draw() -> None:
    """Draw one row for each label and kind, from the same seeds: tissue is comparable."""
    step = SIZE + GAP
    sheet = Image.new("RGB", (MARGIN + COLUMNS * step, len(ROWS) * step), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (label, cysts) in enumerate(ROWS):
        pen.text((4, row * step + SIZE // 2), label + ("\n+ cysts" if cysts else ""), "black")
        for column in range(COLUMNS):
            pair = make_phantom(label, size=SIZE, seed=(7, column), cysts=cysts)
            sheet.paste(outlined(*pair), (MARGIN + column * step, row * step))
    target = Path(__file__).with_suffix(".png")
    sheet.quantize(64, Image.Quantize.FASTOCTREE).save(target, optimize=True)


if __name__ == "__main__":
    draw()
