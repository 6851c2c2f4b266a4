"""The same methods in two experiments, from results that are kept in the project."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark_scripts import load
from following import ROOT

SLABS = ROOT / "results" / "lgg-slabs"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """An experiment twice: `one`, and `other` with a Dice of volumes that is lower by 0.1."""
    for name in ("one", "other"):
        load("keep_experiment").restore(tmp_path / name, SLABS)
    for path in (tmp_path / "other").rglob("unet/**/per_volume.csv"):
        table = pd.read_csv(path)
        table.assign(dice=table["dice"] - 0.1).to_csv(path, index=False)
    (tmp_path / "kept").mkdir()
    shutil.copy(SLABS / "experiment.yaml", tmp_path / "kept")
    return tmp_path


def test_differences_are_paired_by_volume(kept: Path) -> None:
    words = [str(kept / name) for name in ("one", "other", "kept")]
    table = load("against").main(words).set_index(["method", "metric"])
    assert (table["runs"] == 5).all()
    assert (table["volumes"] == 60).all()
    changed = table.loc[("unet", "volume_dice")]
    assert np.allclose(changed[["difference", "low", "high"]].astype(float), 0.1)
    assert (table.drop(("unet", "volume_dice"))["difference"] == 0).all()
    published = pd.read_csv(SLABS / "results.csv").groupby("method")["volume_dice"].mean()
    for method, value in published.items():
        assert table.loc[(method, "volume_dice"), "value"] == pytest.approx(value, abs=5e-3)
    shown = load("make_results").against_of(kept / "kept" / "against.csv")
    assert "+0.100 (+0.100 to +0.100)" in shown


def test_other_volumes_are_refused(kept: Path) -> None:
    path = next((kept / "other").rglob("per_volume.csv"))
    pd.read_csv(path).iloc[1:].to_csv(path, index=False)
    with pytest.raises(SystemExit, match="the test volumes differ"):
        load("against").main([str(kept / name) for name in ("one", "other", "kept")])
