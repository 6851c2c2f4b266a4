"""Draw docs/images/overlay.png: test phantoms of `make demo`, outlined by its two methods.

python docs/images/overlay.py dxseg-demo

Columns are chosen by rule: the lesion images whose Dice with the first method is at the deciles of
`DECILES`, and the first image without a lesion. Rows: the image, the control, the first method.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from dxseg.commands.demo import METHODS
from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.stream import predict_rows
from dxseg.inference.files.overlay import render_overlay
from dxseg.inference.model_folder import find_model_folder
from dxseg.inference.predictor import Predictor

DECILES = (0.1, 0.3, 0.5, 0.7, 0.9)
SIDE, GAP, MARGIN = 128, 4, 118


def chosen_cases(demo: Path) -> list[str]:
    """The cases of the columns."""
    table = pd.read_csv(demo / METHODS[0] / "per_image.csv", dtype={"case_id": str})
    ranked = table[table["true_area"] > 0].sort_values(["dice", "case_id"])["case_id"].tolist()
    places = [round(decile * (len(ranked) - 1)) for decile in DECILES]
    return [*(ranked[place] for place in places), table[table["lesion_free"]]["case_id"].min()]


def draw(demo: Path) -> None:
    """Predict the chosen cases with both methods and write the picture."""
    dataset = Dataset.load(demo / "phantoms")
    rows = dataset.cases.set_index("case_id", drop=False).loc[chosen_cases(demo)]
    masks = [dataset.read_mask(row) for row in rows.to_dict("records")]
    step = SIDE + GAP
    sheet = Image.new("RGB", (MARGIN + len(rows) * step, 3 * step), "white")
    pen = ImageDraw.Draw(sheet)
    for line, name in enumerate(("image", *reversed(METHODS))):
        pen.text((4, line * step + SIDE // 2), name, "black")
    for line, method in enumerate(reversed(METHODS), 1):
        predictor = Predictor.from_folder(find_model_folder(demo / method))
        found = dict(predict_rows(predictor, dataset, rows, keep_images=True))
        for column, (case, truth) in enumerate(zip(rows["case_id"], masks, strict=True)):
            pixels = found[case].image
            plain = render_overlay(pixels, np.zeros(pixels.shape[:2], np.uint8))
            drawn = render_overlay(pixels, found[case].mask, truth=truth)
            for place, panel in ((0, plain), (line, drawn)):
                scaled = Image.fromarray(panel).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
                sheet.paste(scaled, (MARGIN + column * step, place * step))
    target = Path(__file__).with_suffix(".png")
    sheet.quantize(128, Image.Quantize.FASTOCTREE).save(target, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
