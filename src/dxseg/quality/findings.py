"""What a check can find, and the report it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from dxseg.quality.finding_types import Severity

Verb = Literal["drop", "remove-mask", "rewrite-mask", "unite", "group", "empty-split"]
"""What `--fix` does to cases."""

LISTED = 1000
"""Case ids and groups of a finding in the report at most; `count` counts all."""


class Finding(BaseModel):
    """Cases that have one thing in common.

    Attributes:
        code: One of `dxseg.quality.finding_types.KINDS`.
        severity: As there.
        title: As there.
        count: Number of cases.
        group_count: Number of groups that the cases form; 0 where they form none.
        case_ids: The first `LISTED` of them, in the order of the table.
        groups: The first groups of case ids, `LISTED` ids at most.
        details: Up to five examples in words.
        remedy: What to do.
    """

    code: str
    severity: Severity
    title: str
    count: int
    group_count: int = 0
    case_ids: list[str]
    groups: list[list[str]] = []
    details: list[str] = []
    remedy: str


class Area(BaseModel):
    """An area under the ROC curve, from cross-validation.

    Attributes:
        auroc: 0.5 is chance.
        low: Lower end of its 95% interval over groups.
        high: Upper end.
    """

    auroc: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.auroc:.2f} ({self.low:.2f} to {self.high:.2f})"


class Probe(BaseModel):
    """How well something that should not matter predicts the label.

    Attributes:
        name: image-size, border or thumbnail.
        mean: Over the labels; null where too few groups allow none.
        labels: Each label against the rest.
        cases: Number of cases used.
        group_count: Number of groups that they form.
        warned: The labels, or "mean", that are predicted well enough for the finding `shortcut`.
    """

    name: str
    mean: Area | None
    labels: dict[str, Area]
    cases: int
    group_count: int
    warned: list[str]


class Quantiles(BaseModel):
    """Of one figure over the cases.

    Attributes:
        minimum: The lowest value.
        quarter: The 25th percentile.
        median: The 50th percentile.
        three_quarters: The 75th percentile.
        maximum: The highest value.
    """

    minimum: float
    quarter: float
    median: float
    three_quarters: float
    maximum: float


class Statistics(BaseModel):
    """The fingerprint of a dataset.

    Attributes:
        labels: Cases of each label; "" for none.
        patients: Number of patients named.
        masks: Cases with a mask file.
        lesion_masks: Cases whose mask is not empty.
        lesion_free: Cases whose label means that the mask is empty.
        lesion_share: Share of the image that the lesion covers, over lesion masks.
        height: Pixels.
        width: Pixels.
        sizes: Number of distinct sizes.
        channels: Cases of each number of channels.
        bits: Cases of each bit depth.
        spacing_y: In the dataset's unit.
        spacing_x: In the dataset's unit.
        intensity_mean: Mean of each image, 0 to 1 of the range of its bit depth.
        intensity_deviation: Standard deviation of each image, likewise.
        darkest_share: Share of each image's pixels that have its lowest value.
        brightest_share: Share of each image's pixels that have its highest value.
    """

    labels: dict[str, int]
    patients: int
    masks: int
    lesion_masks: int
    lesion_free: int
    lesion_share: Quantiles | None
    height: Quantiles | None
    width: Quantiles | None
    sizes: int
    channels: dict[str, int]
    bits: dict[str, int]
    spacing_y: Quantiles | None
    spacing_x: Quantiles | None
    intensity_mean: Quantiles | None
    intensity_deviation: Quantiles | None
    darkest_share: Quantiles | None
    brightest_share: Quantiles | None


class Action(BaseModel):
    """Something that `--fix` did.

    Attributes:
        action: What was done.
        count: Number of cases.
        case_ids: The first `LISTED` of them.
        reason: Why, in words.
    """

    action: Verb
    count: int
    case_ids: list[str]
    reason: str


class Repair(BaseModel):
    """The repaired copy.

    Attributes:
        destination: Its folder.
        cases: Rows of its table.
        actions: What was done.
        left: Codes of findings that no program can mend.
    """

    destination: Path
    cases: int
    actions: list[Action]
    left: list[str]


class CheckReport(BaseModel):
    """What `check.json` holds.

    Attributes:
        name: The dataset's name.
        digest: The dataset's digest when it was checked.
        splits_sha256: Digest of the splits that were checked; "" where there were none, or where
            cases.csv holds them.
        cases: Rows of the table.
        severities: Number of findings of each severity.
        findings: Errors first.
        probes: The shortcut probes.
        statistics: The fingerprint.
        repair: What `--fix` did; null without it.
    """

    name: str
    digest: str
    splits_sha256: str
    cases: int
    severities: dict[Severity, int]
    findings: list[Finding]
    probes: list[Probe]
    statistics: Statistics
    repair: Repair | None = None

    @property
    def valid(self) -> bool:
        """Whether no finding is an error."""
        return self.severities["error"] == 0
