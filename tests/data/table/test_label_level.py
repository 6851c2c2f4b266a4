"""Labels of a whole study: what they say of a slice, and what they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg.data.splits.holdout import make_splits
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.errors import DxsegError
from dxseg.evaluation.stream import split_rows

SPEC = DatasetSpec(name="x", labels=["none", "cyst", "tumour"], lesion_free=["none"])


def rows(*values: tuple[str, str, str]) -> pd.DataFrame:
    """Rows of volume_id, label, label_level."""
    return pd.DataFrame(
        {
            "case_id": [f"c{number}" for number in range(len(values))],
            "image": [f"{number}.png" for number in range(len(values))],
            "volume_id": [volume for volume, _, _ in values],
            "label": [label for _, label, _ in values],
            "label_level": [level for _, _, level in values],
        }
    )


TABLE = rows(
    ("v0", "tumour", "study"),
    ("v0", "tumour", "study"),
    ("v0", "none", "image"),
    ("v1", "none", "study"),
    ("v2", "cyst", "image"),
    ("v2", "cyst", ""),
    ("v2", "", ""),
)


def test_a_study_without_lesion_speaks_of_every_slice_another_of_none(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, SPEC, TABLE)
    assert dataset.label_targets().tolist() == [-1, -1, 0, 0, 1, 1, -1]
    assert dataset.image_labels.tolist() == ["", "", "none", "none", "cyst", "cyst", ""]
    assert dataset.study_labels.tolist() == ["tumour", "tumour", "", "none", "", "", ""]
    assert dataset.lesion_free.tolist() == [False, False, True, True, False, False, False]
    assert dataset.has_mask.tolist() == dataset.lesion_free.tolist()


def test_a_study_is_the_slices_that_may_show_its_lesion(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, SPEC, TABLE)
    assert dataset.studies.tolist() == [0, 0, -1, -1, -1, -1, -1]
    assert dataset.study_targets().tolist() == [2, 2, -1, -1, -1, -1, -1]


def test_without_a_volume_a_patients_images_of_one_label_are_a_study(tmp_path: Path) -> None:
    table = rows(*[("", label, "study") for label in ("tumour", "cyst", "tumour", "cyst")])
    table["patient_id"] = ["p", "p", "p", ""]
    dataset = Dataset(tmp_path, SPEC, table)
    assert dataset.studies.tolist() == [0, 1, 0, 2]
    table["volume_id"] = ["x", "", "y", ""]
    assert Dataset(tmp_path, SPEC, table).studies.tolist() == [0, 1, 2, 3]


def test_a_study_whose_lesion_is_known_says_nothing_of_the_others(tmp_path: Path) -> None:
    found = rows(("v0", "tumour", "study"), ("v0", "tumour", "image"), ("v1", "cyst", "study"))
    dataset = Dataset(tmp_path, SPEC, found)
    assert dataset.studies.tolist() == [-1, -1, 0]
    assert dataset.study_targets().tolist() == [-1, -1, 1]


def test_several_labels_a_study(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"multi_label": True})
    table = rows(("v0", "cyst;tumour", "study"), ("v1", "cyst;tumour", "image"))
    dataset = Dataset(tmp_path, spec, table)
    np.testing.assert_array_equal(dataset.label_targets(), [[np.nan] * 3, [0, 1, 1]])
    np.testing.assert_array_equal(dataset.study_targets(), [[0, 1, 1], [np.nan] * 3])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            ("v0", "tumour", "slice"),
            ["row 9", "label_level", "'slice'", "image, slab, study, mask"],
        ),
        (("v9", "", "study"), ["row 9", "label_level", "no label"]),
        (("v0", "cyst", "study"), ["row 9", "label", "'cyst'", "study-level label of an earlier"]),
    ],
)
def test_wrong_levels_name_the_row(tmp_path: Path, row: Any, words: list[str]) -> None:
    with pytest.raises(DxsegError) as caught:
        Dataset(tmp_path, SPEC, pd.concat([TABLE, rows(row).assign(case_id="x", image="x.png")]))
    for word in words:
        assert word in str(caught.value)


def test_levels_survive_saving(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path, SPEC, TABLE)
    loaded = Dataset.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.cases, dataset.cases)
    assert loaded.digest() == dataset.digest()


def test_the_digest_depends_on_levels_only_where_there_are_any(tmp_path: Path) -> None:
    plain = TABLE.drop(columns="label_level")
    silent = Dataset(tmp_path, SPEC, plain).digest()
    assert Dataset(tmp_path, SPEC, TABLE.assign(label_level="")).digest() == silent
    assert Dataset(tmp_path, SPEC, TABLE).digest() != silent
    # As it was computed before label_level and slicing existed.
    spec = DatasetSpec(name="n", labels=["a"])
    table = pd.DataFrame({"case_id": ["c"], "image": ["c.png"], "label": ["a"]})
    before = "e3715d7e88a2e9388ffbab02448a43f2f18f9dbb0bcda844038f25422b3df748"
    assert Dataset(tmp_path, spec, table).digest() == before


def test_studies_stay_together_and_are_stratified(tmp_path: Path) -> None:
    values = [(f"v{n:02d}", ("none", "tumour")[n % 2], "study") for n in range(20)] * 3
    dataset = Dataset(tmp_path, SPEC, rows(*values))
    splits = make_splits(dataset, fractions=(0.5, 0.2, 0.3))
    joined = splits.assign(label=dataset.cases["label"], volume=dataset.cases["volume_id"])
    assert (joined.groupby("volume")["split"].nunique() == 1).all()
    shares = joined.groupby(["split", "label"]).size().unstack()
    assert (shares["none"] == shares["tumour"]).all()


def test_a_study_label_contradicts_no_near_duplicate(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    table = rows(*[("", label, "study") for label in ("tumour", "cyst")], ("", "none", "image"))
    for name in table["image"]:
        Image.fromarray(pixels).save(tmp_path / name)
    splits = make_splits(Dataset(tmp_path, SPEC, table))
    assert splits["group"].nunique() == 1
    assert (splits["split"] != "dropped").all()
    splits = make_splits(Dataset(tmp_path, SPEC, table.assign(label_level="image")))
    assert (splits["split"] == "dropped").all()


def test_slices_of_which_nothing_is_known_are_not_evaluated(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, SPEC, TABLE.assign(split="test"))
    splits = make_splits(dataset)
    kept, left_out = split_rows(dataset, splits, "test", tmp_path / "splits.csv")
    assert kept["case_id"].tolist() == ["c2", "c3", "c4", "c5"]
    assert kept["label"].tolist() == ["none", "none", "cyst", "cyst"]
    assert left_out == 3
