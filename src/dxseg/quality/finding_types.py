"""The types of findings, each with its severity and remedy."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

Severity = Literal["error", "warning", "info"]


class FindingType(BaseModel):
    """A type of finding.

    Attributes:
        severity: error: results would be wrong or training stops; warning: look at it before you
            trust results; info: worth knowing.
        title: The cases, to follow their number.
        remedy: What to do.
    """

    severity: Severity
    title: str
    remedy: str


def _types(severity: Severity, *rows: tuple[str, str, str]) -> dict[str, FindingType]:
    return {
        code: FindingType(severity=severity, title=title, remedy=remedy)
        for code, title, remedy in rows
    }


FINDING_TYPES: dict[str, FindingType] = {
    **_types(
        "error",
        (
            "image-not-found",
            "images that do not exist, or that a link leads out of the dataset's folders",
            "correct the path or roots in dataset.yaml; --fix drops the case",
        ),
        (
            "image-unreadable",
            "images that are empty, truncated, damaged, too large or in an unknown format",
            "copy or export the file again; --fix drops the case",
        ),
        (
            "image-channels",
            "images whose channels do not match those of dataset.yaml",
            "correct channels in dataset.yaml or export the image again; --fix drops the case",
        ),
        (
            "image-depth-mixed",
            "images of another bit depth than most",
            "convert one of the two: training takes 8-bit or 16-bit images, not both",
        ),
        (
            "mask-not-found",
            "masks that do not exist, or that a link leads out of the dataset's folders",
            "correct the path; --fix keeps the case without a mask",
        ),
        (
            "mask-unreadable",
            "masks that are empty files, truncated or damaged",
            "export the mask again; --fix keeps the case without a mask",
        ),
        (
            "mask-refused",
            "masks that cannot be read without guessing",
            "write 0 and 255, or class numbers; --fix keeps the case without a mask",
        ),
        (
            "mask-size",
            "masks whose size differs from their image",
            "export the mask at the image's size; --fix keeps the case without a mask",
        ),
        (
            "mask-on-lesion-free",
            "masks with a lesion where the label means lesion-free",
            "correct the label or the mask; --fix drops the case, since either may be wrong",
        ),
        (
            "patients-across-splits",
            "cases of a patient, volume or group that is in several splits",
            "split again with `dxseg split`",
        ),
        (
            "duplicates-across-splits",
            "near-duplicates in different splits",
            "split again with `dxseg split`; where all patients are named, run --fix first",
        ),
        (
            "labels-contradict-in-splits",
            "near-duplicates with contradicting labels that are in a split",
            "split again with `dxseg split`, which drops them, or correct the labels",
        ),
    ),
    **_types(
        "warning",
        (
            "image-constant",
            "images whose pixels all have one value",
            "export them again or remove their rows",
        ),
        (
            "image-saturated",
            "images with the highest value in at least half of the pixels",
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
            "check whether the mask was drawn by mistake",
        ),
        (
            "mask-detail",
            "masks with a lesion that no network with the input of --image-size and --spacing can "
            "predict with a Dice of 0.8 or more",
            "train with a larger data.image_size; data.patch_size and model.coarse_reduction keep "
            "its cost down (docs/training.md)",
        ),
        (
            "mask-border",
            "masks that touch all four sides of the image",
            "check whether the mask is inverted or a frame",
        ),
        (
            "mask-orientation",
            "masks of images with an EXIF orientation, whose shape does not show what they were "
            "drawn on",
            "look at some: a mask must fit the picture as viewers show it; if it was drawn on the "
            "stored pixels, remove the orientation from the image",
        ),
        (
            "mask-left-out",
            "cases with more masks next to the one in the table",
            "merge them; --fix does",
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
            "remove the copies; --fix keeps the first and merges the masks",
        ),
        (
            "duplicates-near",
            "images that have a near-duplicate",
            "nothing if you split with `dxseg split`, which keeps them together where patients are "
            "not named; otherwise --fix writes the column group",
        ),
        (
            "duplicates-across-patients",
            "near-duplicates under different patients",
            "correct patient_id, or run --fix: its column group keeps them in one split",
        ),
        (
            "patient-missing",
            "cases without patient",
            "add patient_id if you can, or import with --patients: only then is a split by patient "
            "certain",
        ),
        (
            "patient-guessed",
            "cases whose patient is derived from the names of folders or files",
            "look at some; if they are wrong, import again with --patients or --patient-pattern",
        ),
        (
            "spacing-missing",
            "cases without spacing although spacing_unit is mm",
            "add spacing_y and spacing_x: distances of these cases are not in millimeters",
        ),
        (
            "label-rare",
            "cases of labels with fewer than 10 groups",
            "collect more, or merge labels: metrics for these are unreliable",
        ),
        (
            "split-lacks-label",
            "cases of labels that are missing from training, validation or test",
            "split again with `dxseg split`, or merge labels",
        ),
        (
            "shortcut",
            "labeled cases whose label can be predicted from something unrelated to the lesion",
            "look for what reveals the label; see docs/check.md",
        ),
    ),
    **_types(
        "info",
        (
            "image-suffix",
            "images whose suffix does not match their format",
            "nothing: the content is used",
        ),
        (
            "image-orientation",
            "images with an EXIF orientation",
            "nothing: they are read as viewers show them, and so are their masks",
        ),
        (
            "mask-repaired",
            "masks that are not plain numbers and were converted",
            "look at some; --fix writes them as plain masks",
        ),
        (
            "mask-layout",
            "masks stored in color, with a palette or with transparency",
            "nothing: they are read correctly; --fix writes them as plain masks",
        ),
        ("mask-merged", "masks that an importer merged from several", "nothing"),
        ("label-missing", "cases without a label", "nothing if that is intended"),
        (
            "unused",
            "cases with neither label nor mask",
            "add either: students and self-training use them where their teacher is certain, "
            "stages 1 and 2 do not",
        ),
    ),
}
"""Every code in the order of the report, documented in docs/check.md."""
