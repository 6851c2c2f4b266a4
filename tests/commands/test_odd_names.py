"""Names of files, however odd, go through import, check, split and predict, or are told."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from brightness import Maker
from cli_results import call
from dxseg.data.importers.names import fold_name
from dxseg.data.table.dataset import Dataset
from dxseg.inference.predictor import Predictor

ODD = [
    *(":x:", "[red]b", "=1+1", "-o", " lead", "a.b", "con", "100%", "NA", "none", "?", "#", "~"),
    *("a" * 251, "患" * 83, unicodedata.normalize("NFD", "Läsion"), "é" * 125, "x'\"y", "a,b;c"),
]
REFUSED = ["back\\slash", "line\nbreak", "\x1b[31mred", "\u2028", "\udcff\udcfe", "\x85", "tab\t"]
NAMES = st.sampled_from([*ODD, *REFUSED]) | st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
)


def fits(name: str) -> bool:
    return len(os.fsencode(f"{name}.png")) <= 255 and not name.startswith(".")


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")


def test_odd_names_go_through_or_are_told(tmp_path: Path) -> None:
    assert import_to_predict([*ODD, *REFUSED], tmp_path) == REFUSED


@pytest.mark.slow
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(odd=st.lists(NAMES.filter(fits), min_size=1, max_size=12, unique_by=fold_name))
def test_any_names_go_through_or_are_told(
    odd: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    import_to_predict(odd, tmp_path_factory.mktemp("odd"))


def import_to_predict(odd: list[str], root: Path) -> list[str]:
    """Import, check, split and predict images of these names; the names that import refused."""
    names = list(dict.fromkeys([*odd, "plain-1", "plain-2", "plain-3"]))
    write_images(root / "images" / "benign", names)
    imported = call("import", "folder", root / "images", root / "data")
    dataset = Dataset.load(root / "data")
    found = {dataset.image_path(row).stem for row in dataset.cases.itertuples()}
    left_out = [name for name in names if name not in found]
    assert imported.exit_code == (1 if left_out else 0)
    assert f"files skipped: {len(left_out)}" in imported.stdout or not left_out
    assert not {"\x1b", "\x85"} & set(imported.output)
    assert call("split", root / "data", "--out", root / "splits.csv").exit_code == 0
    split = pd.read_csv(root / "splits.csv", dtype=str, keep_default_na=False)
    assert split["case_id"].tolist() == dataset.cases["case_id"].tolist()
    checked = call("check", root / "data", "--splits", root / "splits.csv", "--workers", 1)
    assert checked.exit_code == 0, checked.output
    with pytest.MonkeyPatch.context() as patch:
        predictor = Maker()()
        patch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)
        predicted = call("predict", "model", root / "images", "--out", root / "out")
    table = pd.read_csv(root / "out" / "predictions.csv", dtype=str, keep_default_na=False)
    assert len(table) == len(names)
    masks = [path for path in (root / "out" / "masks").rglob("*") if path.is_file()]
    done = table["error"].eq("") if "error" in table else pd.Series(True, index=table.index)
    assert len(masks) == done.sum()
    assert predicted.exit_code == (0 if done.all() else 1)
    return left_out
