"""The kinds of what a check can find, each with its severity and remedy."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

Severity = Literal["error", "warning", "info"]


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
