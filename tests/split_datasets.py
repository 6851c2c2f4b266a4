"""Datasets that exist in memory alone, to be split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from hypothesis import strategies as st

from dxseg.data.table.dataset import Dataset, DatasetSpec

LABELS = ["normal", "benign", "malignant"]


def make_dataset(
    labels: Sequence[str],
    patients: Sequence[str] | None = None,
    *,
    root: Path = Path("/nonexistent"),
    masks: Sequence[bool] | None = None,
    names: Sequence[str] = LABELS,
    multi_label: bool = False,
    **columns: Any,
) -> Dataset:
    """Return a dataset in memory; lesions have masks unless told otherwise."""
    count = len(labels)
    free = "normal"
    own = [f"p{i}" for i in range(count)]
    has = masks if masks is not None else [label not in ("", free) for label in labels]
    table = pd.DataFrame(
        {
            "case_id": [f"c{i}" for i in range(count)],
            "image": [f"c{i}.png" for i in range(count)],
            "mask": [f"c{i}_mask.png" if h else "" for i, h in enumerate(has)],
            "label": list(labels),
            "patient_id": own if patients is None else list(patients),
            **columns,
        }
    )
    spec = DatasetSpec(
        name="test",
        labels=list(names),
        lesion_free=[free] if free in names else [],
        multi_label=multi_label,
    )
    return Dataset(root, spec, table)


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    """Draw cases of up to 40 patients with any labels, none, and with or without masks."""
    count = draw(st.integers(1, 120))
    patients = draw(st.lists(st.integers(0, 39), min_size=count, max_size=count))
    labels = draw(st.lists(st.sampled_from([*LABELS, ""]), min_size=count, max_size=count))
    masks = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return make_dataset(labels, [f"p{p}" for p in patients], masks=masks)
