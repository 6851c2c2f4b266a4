from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg.reports.plots import read_metrics, score_distribution, training_curves

LIGHTNING = """epoch,step,train_loss,val_dice,val_loss
0,3,1.0,,
0,7,3.0,,
0,7,,0.25,1.5
1,15,1.0,,
1,15,,0.5,1.25
"""


def picture(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        return np.array(opened.convert("RGB"))


def test_metrics_are_gathered_by_epoch(tmp_path):
    (tmp_path / "metrics.csv").write_text(LIGHTNING)
    table = read_metrics(tmp_path / "metrics.csv")
    assert list(table.index) == [0, 1]
    assert table["train_loss"].tolist() == [2.0, 1.0]
    assert table["val_dice"].tolist() == [0.25, 0.5]
    assert "step" not in table


@pytest.mark.parametrize(
    "torn", ["2,2", "2,23,0.5,0.1,0.2,9,9\n", "2,23,\x00\x00,,\n", "x,y,z,a,b\n", '2,23,"0.5']
)
def test_torn_metrics_do_not_hide_the_rest(tmp_path, torn):
    (tmp_path / "metrics.csv").write_text(LIGHTNING + torn)
    table = read_metrics(tmp_path / "metrics.csv")
    assert table.loc[:1, "val_dice"].tolist() == [0.25, 0.5]


@pytest.mark.parametrize("content", [None, "", "epoch,step\n", "a,b\n1,2\n"])
def test_no_metrics_is_no_picture(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content)
    assert training_curves({"stage 1": read_metrics(tmp_path / "metrics.csv")}) == b""


def test_curves_are_drawn_per_stage_and_reproducible(tmp_path):
    (tmp_path / "metrics.csv").write_text(LIGHTNING)
    table = read_metrics(tmp_path / "metrics.csv")
    one = training_curves({"stage 1": table, "stage 2": pd.DataFrame()})
    two = training_curves({"stage 1": table, "stage 2": table})
    assert picture(two).shape[0] > 1.8 * picture(one).shape[0]
    assert one == training_curves({"stage 1": table, "stage 2": pd.DataFrame()})


def test_text_that_matplotlib_would_read_as_a_formula_is_drawn():
    table = pd.DataFrame({"val_$x{": [0.1, 0.2]}, index=pd.Index([0, 1], name="epoch"))
    assert picture(training_curves({"$_{": table})).std() > 0
    assert picture(score_distribution({"run $^": np.array([0.5])}, "Dice")).std() > 0


def test_distribution_needs_a_finite_score():
    assert score_distribution({"a": np.array([np.nan])}, "Dice") == b""
    assert score_distribution({"a": np.array([np.nan, 1.0])}, "Dice")


def test_no_global_matplotlib_state():
    import subprocess
    import sys

    code = (
        "import sys; from dxseg.reports import plots; assert 'matplotlib' not in sys.modules;"
        "import numpy; plots.score_distribution({'a': numpy.ones(3)}, 'Dice');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
