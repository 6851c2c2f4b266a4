"""The fingerprint of a dataset: counts, sizes, intensities."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from dxseg.data.table.cases import split_labels
from dxseg.quality.findings import Quantiles, Statistics
from dxseg.quality.scan import Scan


def fingerprint(scan: Scan) -> Statistics:
    """Summarize the table and the files of a dataset.

    Args:
        scan: The scanned files.
    """
    dataset = scan.dataset
    cases, facts = dataset.cases, scan.facts[scan.readable]
    lesion = scan.facts["mask_area"].gt(0) & scan.facts["mask_code"].eq("") & scan.readable
    lesions = scan.facts[lesion]
    return Statistics(
        labels=_labels(scan),
        patients=int(cases["patient_id"][cases["patient_id"].ne("")].nunique()),
        volumes=int(cases["volume_id"][cases["volume_id"].ne("")].nunique()),
        masks=int(cases["mask"].ne("").sum()),
        lesion_masks=int(lesion.sum()),
        lesion_free=int(dataset.lesion_free.sum()),
        lesion_fraction=_quantiles(lesions["mask_area"] / (lesions["height"] * lesions["width"])),
        height=_quantiles(facts["height"]),
        width=_quantiles(facts["width"]),
        sizes=len(facts[["height", "width"]].drop_duplicates()),
        channels=_counts(facts["channels"]),
        bits=_counts(facts["bits"]),
        spacing_z=_quantiles(cases["spacing_z"].dropna()),
        spacing_y=_quantiles(cases["spacing_y"].dropna()),
        spacing_x=_quantiles(cases["spacing_x"].dropna()),
        intensity_mean=_quantiles(facts["mean"]),
        intensity_deviation=_quantiles(facts["deviation"]),
        darkest_fraction=_quantiles(facts["darkest_fraction"]),
        brightest_fraction=_quantiles(facts["brightest_fraction"]),
    )


def _labels(scan: Scan) -> dict[str, int]:
    spec = scan.dataset.spec
    counts = Counter(dict.fromkeys(spec.labels, 0))
    for text, number in scan.dataset.cases["label"].value_counts().items():
        for name in split_labels(str(text), spec) or [""]:
            counts[name] += int(number)
    return dict(counts)


def _counts(values: pd.Series[Any]) -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts().sort_index().items()}


def _quantiles(values: pd.Series[Any]) -> Quantiles | None:
    if values.empty:
        return None
    five = [float(value) for value in np.quantile(values.to_numpy(float), (0, 0.25, 0.5, 0.75, 1))]
    return Quantiles(minimum=five[0], q1=five[1], median=five[2], q3=five[3], maximum=five[4])
