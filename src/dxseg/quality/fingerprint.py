"""The fingerprint of a dataset: counts, sizes, intensities."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from dxseg.data.table.cases import split_labels
from dxseg.data.table.volumes import one_per_volume
from dxseg.quality.scan import Scan


class Quantiles(BaseModel):
    """Quartiles of a value over the cases.

    Attributes:
        minimum: The lowest value.
        q1: The 25th percentile.
        median: The 50th percentile.
        q3: The 75th percentile.
        maximum: The highest value.
    """

    minimum: float
    q1: float
    median: float
    q3: float
    maximum: float

    def __str__(self) -> str:
        return (
            f"median {self.median:.4g}, interquartile range {self.q1:.4g} to {self.q3:.4g}, "
            f"range {self.minimum:.4g} to {self.maximum:.4g}"
        )


class Statistics(BaseModel):
    """The fingerprint of a dataset.

    Attributes:
        labels: Number of cases of each label; "" for none.
        patients: Number of distinct patient ids.
        volumes: Number of volumes that the cases are slices of.
        masks: Number of cases with a mask file.
        lesion_masks: Number of cases whose mask is not empty.
        lesion_free: Number of cases whose label means that the mask is empty.
        lesion_fraction: Fraction of the image that the lesion covers, over lesion masks.
        height: In pixels.
        width: In pixels.
        sizes: Number of distinct sizes.
        channels: Number of cases of each number of channels.
        bits: Number of cases of each bit depth.
        spacing_z: Between slices, in millimeters; a volume counts once.
        spacing_y: In the dataset's unit, likewise.
        spacing_x: In the dataset's unit, likewise.
        intensity_mean: Mean of each image, 0 to 1 of the range of its bit depth.
        intensity_deviation: Standard deviation of each image, likewise.
        darkest_fraction: Fraction of each image's pixels that have its lowest value.
        brightest_fraction: Fraction of each image's pixels that have its highest value.
    """

    labels: dict[str, int]
    patients: int
    volumes: int
    masks: int
    lesion_masks: int
    lesion_free: int
    lesion_fraction: Quantiles | None
    height: Quantiles | None
    width: Quantiles | None
    sizes: int
    channels: dict[str, int]
    bits: dict[str, int]
    spacing_z: Quantiles | None
    spacing_y: Quantiles | None
    spacing_x: Quantiles | None
    intensity_mean: Quantiles | None
    intensity_deviation: Quantiles | None
    darkest_fraction: Quantiles | None
    brightest_fraction: Quantiles | None

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each statistic, as text for a table."""
        counts = ", ".join(f"{name or 'no label'} {n}" for name, n in self.labels.items())
        rows = [
            ("labels", counts),
            ("lesion-free by label", str(self.lesion_free)),
            ("patients", str(self.patients)),
            ("volumes", str(self.volumes)),
            ("mask files", f"{self.masks}, {self.lesion_masks} with a lesion"),
            ("channels", ", ".join(f"{key}: {n}" for key, n in self.channels.items())),
            ("bits", ", ".join(f"{key}: {n}" for key, n in self.bits.items())),
            ("distinct sizes", str(self.sizes)),
        ]
        spread = {
            "height (px)": self.height,
            "width (px)": self.width,
            "spacing between slices": self.spacing_z,
            "spacing, vertical": self.spacing_y,
            "spacing, horizontal": self.spacing_x,
            "lesion, fraction of the image": self.lesion_fraction,
            "mean intensity": self.intensity_mean,
            "standard deviation of intensity": self.intensity_deviation,
            "fraction of pixels with the lowest value": self.darkest_fraction,
            "fraction of pixels with the highest value": self.brightest_fraction,
        }
        return [
            *rows,
            *((name, str(five)) for name, five in spread.items() if five is not None),
        ]


def fingerprint(scan: Scan) -> Statistics:
    """Summarize the table and the files of a dataset.

    Args:
        scan: The units files.
    """
    dataset = scan.dataset
    cases, facts = dataset.cases, scan.facts[scan.readable]
    lesion = scan.facts["mask_area"].gt(0) & scan.facts["mask_code"].eq("") & scan.readable
    lesions, units = scan.facts[lesion], one_per_volume(cases)
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
        spacing_z=_quantiles(units["spacing_z"].dropna()),
        spacing_y=_quantiles(units["spacing_y"].dropna()),
        spacing_x=_quantiles(units["spacing_x"].dropna()),
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
