"""Draw the label-efficiency curves of docs/results.md from the committed results of experiments.

python docs/images/curves.py lidc-again busi-again
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from dxseg.experiments.experiment import parse_experiment, read_experiment_text
from dxseg.experiments.page import draw_curves
from dxseg.io.atomic import write_bytes_atomic

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "results"


def draw(name: str) -> None:
    """Draw `curves-NAME.png` next to this file from `results/NAME`."""
    path = RESULTS / name / "experiment.yaml"
    experiment = parse_experiment(read_experiment_text(path), str(path))
    curves = pd.read_csv(path.parent / "curves.csv")
    write_bytes_atomic(HERE / f"curves-{name}.png", draw_curves(experiment, curves))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        draw(name)
