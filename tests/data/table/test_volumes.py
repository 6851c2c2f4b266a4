"""Volumes in the table: what contradicts itself is refused at once."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.data.table.volumes import SLABS, slab_numbers
from dxseg.errors import DxsegError

SPEC = DatasetSpec(name="x", labels=["none", "tumor"], lesion_free=["none"], spacing_unit="mm")


def table(**columns: list[object]) -> pd.DataFrame:
    cases = pd.DataFrame(
        {
            "case_id": list("abcd"),
            "image": [f"{name}.png" for name in "abcd"],
            "mask": ["", "m.png", "", ""],
            "label": ["none", "tumor", "none", "none"],
            "volume_id": ["v", "v", "v", ""],
            "slice_index": [0, 1, 2, None],
            "spacing_y": [1.0] * 4,
            "spacing_x": [1.0] * 4,
            "spacing_z": [5.0, 5.0, 5.0, None],
        }
    )
    return cases.assign(**columns)


def test_a_consistent_table_is_read():
    data = Dataset(Path("/data"), SPEC, table(label_level=["mask", "mask", "mask", ""]))
    assert data.cases["spacing_z"].tolist()[:3] == [5, 5, 5]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"spacing_z": [5, 4, 5, None]}, "row 3, column spacing_z, .*: differs from an earlier"),
        ({"spacing_z": [5, None, 5, None]}, "row 3, column spacing_z, .*: differs"),
        ({"spacing_y": [1, 2, 1, 1], "spacing_x": [1, 1, 1, 1]}, "row 3, column spacing_y"),
        ({"spacing_z": [5, 5, 5, 5]}, "row 5, column spacing_z, .*without volume_id"),
        ({"slice_index": [0, 1, 1, None]}, "row 4, column slice_index, .*earlier row of the vol"),
        ({"patient_id": ["p", "p", "q", ""]}, "row 4, column patient_id, .*differs"),
        ({"label_level": ["mask", "mask", "mask", "mask"]}, "row 5, column label_level, .*volume"),
        ({"label_level": ["mask"] * 3 + [""], "mask": [""] * 4}, "row 3, .*means lesion-free, a m"),
        ({"label_level": ["slab"] * 3 + [""], "slice_index": [0, 1, None, None]}, "row 4, .*both"),
        ({"label_level": ["slice", "", "", ""]}, "one of image, slab, study, mask"),
    ],
)
def test_contradictions_are_refused_with_their_row(columns, message):
    with pytest.raises(DxsegError, match=message):
        Dataset(Path("/data"), SPEC, table(**columns))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(0, 5))
def test_slabs_are_consecutive_and_of_equal_size(sizes, first):
    cases = pd.DataFrame(
        [
            {"volume_id": f"v{number}", "slice_index": first + index}
            for number, size in enumerate(sizes)
            for index in range(size)
        ]
    ).astype({"slice_index": "Int64"})
    numbers = pd.Series(slab_numbers(cases))
    for _, own in numbers.groupby(cases["volume_id"]):
        assert own.is_monotonic_increasing
        if len(own) >= SLABS:
            counts = own.value_counts()
            assert len(counts) == SLABS
            assert counts.max() - counts.min() <= 1


def test_labels_of_slabs_are_learnt_as_bags_of_their_own():
    cases = pd.DataFrame(
        {
            "case_id": [f"c{n}" for n in range(6)],
            "image": [f"{n}.png" for n in range(6)],
            "label": ["tumor", "tumor", "none", "none", "tumor", "tumor"],
            "label_level": ["slab"] * 6,
            "volume_id": ["v"] * 6,
            "slice_index": range(6),
        }
    )
    data = Dataset(Path("/data"), SPEC, cases)
    assert data.studies.tolist() == [0, 0, -1, -1, 1, 1]
    assert data.lesion_free.tolist() == [False, False, True, True, False, False]
    cases.loc[1, "label"] = "none"
    with pytest.raises(DxsegError, match=r"differs from the .* of its slab"):
        Dataset(Path("/data"), SPEC, cases)
