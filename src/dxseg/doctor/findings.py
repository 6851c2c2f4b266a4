"""What the doctor can find, and the report it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

Severity = Literal["error", "warning", "info"]
Verb = Literal["drop", "remove-mask", "rewrite-mask", "unite", "group", "empty-split"]
"""What `--fix` does to cases."""

LISTED = 1000
"""Case ids and groups of a finding in the report at most; `count` counts all."""


class Kind(BaseModel):
    """A kind of finding.

    Attributes:
        severity: error: results would be wrong or training stops; warning: look at it before you
            trust results; info: worth knowing.
        title: What was found, for a count of cases.
        remedy: What to do.
    """

    severity: Severity
    title: str
    remedy: str


def _kinds(severity: Severity, *rows: tuple[str, str, str]) -> dict[str, Kind]:
    return {
        code: Kind(severity=severity, title=title, remedy=remedy) for code, title, remedy in rows
    }


KINDS: dict[str, Kind] = {
    **_kinds(
        "error",
        (
            "image-not-found",
            "images that are absent, or that a link leads out of the dataset's folders",
            "correct the path or roots in dataset.yaml; --fix drops the case",
        ),
        (
            "image-unreadable",
            "images that are empty, cut short, damaged, too large or of an unknown kind",
            "copy or export the file again; --fix drops the case",
        ),
        (
            "image-channels",
            "images whose channels do not turn into those of dataset.yaml",
            "correct channels in dataset.yaml or export the image again; --fix drops the case",
        ),
        (
            "image-depth-mixed",
            "images of another bit depth than most",
            "convert one kind: training takes 8-bit or 16-bit images, not both",
        ),
        (
            "mask-not-found",
            "masks that are absent, or that a link leads out of the dataset's folders",
            "correct the path; --fix keeps the case without a mask",
        ),
        (
            "mask-unreadable",
            "masks that are empty files, cut short or damaged",
            "export the mask again; --fix keeps the case without a mask",
        ),
        (
            "mask-refused",
            "masks that cannot be understood without guessing",
            "write 0 and 255, or class numbers; --fix keeps the case without a mask",
        ),
        (
            "mask-size",
            "masks of another size than their image",
            "export the mask at the image's size; --fix keeps the case without a mask",
        ),
        (
            "mask-on-lesion-free",
            "masks with a lesion where the label means lesion-free",
            "correct the label or the mask; --fix drops the case, since either may be wrong",
        ),
        (
            "patients-across-splits",
            "cases of a patient, volume or group that is divided between splits",
            "split again with `dxseg split`",
        ),
        (
            "duplicates-across-splits",
            "near-duplicates on both sides of the split",
            "split again with `dxseg split`; where all patients are named, run --fix first",
        ),
        (
            "labels-contradict-in-splits",
            "near-duplicates with contradicting labels that the splits use",
            "split again with `dxseg split`, which drops them, or correct the labels",
        ),
    ),
    **_kinds(
        "warning",
        (
            "image-constant",
            "images whose pixels all have one value",
            "export them again or remove their rows",
        ),
        (
            "image-saturated",
            "images of which half or more have the highest value",
            "export them with a wider intensity window",
        ),
        (
            "mask-empty",
            "empty masks although the label names a lesion",
            "draw the lesion, empty the mask column, or correct the label",
        ),
        (
            "mask-nearly-empty",
            "masks of fewer than 10 pixels, or 0.01% of the image",
            "look whether the mask is a slip of the pen",
        ),
        (
            "mask-border",
            "masks that touch all four sides of the image",
            "look whether the mask is inverted or a frame",
        ),
        (
            "mask-left-out",
            "cases with further masks beside the one that the table names",
            "unite them; --fix does",
        ),
        (
            "mask-shared",
            "cases that share a mask file with another case",
            "correct the column mask",
        ),
        (
            "labels-contradict",
            "near-duplicates with contradicting labels",
            "correct the labels; `dxseg split` and --fix drop these cases",
        ),
        (
            "duplicates-exact",
            "images whose file occurs several times",
            "remove the copies; --fix keeps the first and unites the masks",
        ),
        (
            "duplicates-near",
            "images that have a near-duplicate",
            "nothing if you split with `dxseg split`, which keeps them together where patients are "
            "not named; else --fix writes the column group",
        ),
        (
            "duplicates-across-patients",
            "near-duplicates under different patients",
            "correct patient_id, or run --fix: its column group keeps them on one side",
        ),
        (
            "patient-missing",
            "cases without patient and volume",
            "give patient_id if you can: only then is a split by patient sure",
        ),
        (
            "spacing-missing",
            "cases without spacing although spacing_unit is mm",
            "give spacing_y and spacing_x: distances of these cases are not in millimetres",
        ),
        (
            "label-rare",
            "cases of labels with fewer than 10 groups",
            "collect more, or join labels: figures for these are left to chance",
        ),
        (
            "split-lacks-label",
            "cases of labels that are absent from training, validation or test",
            "split again with `dxseg split`, or join labels",
        ),
        (
            "shortcut",
            "labelled cases whose label is predicted by what should not tell it",
            "look at what gives the label away; see docs/check.md",
        ),
    ),
    **_kinds(
        "info",
        (
            "image-suffix",
            "images whose name says another format than their content",
            "nothing: the content decides",
        ),
        (
            "mask-repaired",
            "masks that are not plain numbers and were understood all the same",
            "look at some; --fix writes them as plain masks",
        ),
        (
            "mask-layout",
            "masks stored in colour, with a palette or with transparency",
            "nothing: they are understood; --fix writes them as plain masks",
        ),
        ("mask-united", "masks that an importer united from several", "nothing"),
        ("label-missing", "cases without a label", "nothing if that is meant"),
        (
            "unused",
            "cases with neither label nor mask",
            "give either: training makes no use of them",
        ),
    ),
}
"""Every code in the order of the report; docs/check.md says the same."""


class Finding(BaseModel):
    """Cases that have one thing in common.

    Attributes:
        code: One of `KINDS`.
        severity: As in `KINDS`.
        title: As in `KINDS`.
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
