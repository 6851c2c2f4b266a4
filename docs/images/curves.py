"""Draw the label-efficiency curves of docs/results.md from the committed results of studies.

python docs/images/curves.py lidc-again busi-again
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from dxseg.data.files import write_bytes_atomic
from dxseg.studies.page import draw_curves
from dxseg.studies.study import parse_study, read_study_text

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "results"


def draw(name: str) -> None:
    """Draw `curves-NAME.png` beside this file from `results/NAME`."""
    path = RESULTS / name / "study.yaml"
    study = parse_study(read_study_text(path), str(path))
    curves = pd.read_csv(path.parent / "curves.csv")
    write_bytes_atomic(HERE / f"curves-{name}.png", draw_curves(study, curves))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        draw(name)
