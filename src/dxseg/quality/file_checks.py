"""Findings about single cases: their files, masks and labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from dxseg.data.readers.orientation import UPRIGHT
from dxseg.data.splits.groups import label_sets
from dxseg.quality.row_findings import RowFinding, flag_rows
from dxseg.quality.scan import Scan

SATURATED = 0.5
FEW_PIXELS, FEW_FRACTION = 10, 1e-4
RARE_GROUPS = 10
ATTAINABLE = 0.8


def file_findings(scan: Scan) -> list[RowFinding]:
    """Find problems of single images, masks and rows.

    Args:
        scan: The scanned files.
    """
    return [*_image_findings(scan), *_mask_findings(scan), *_table_findings(scan)]


def _image_findings(scan: Scan) -> Iterator[RowFinding]:
    facts = scan.facts
    for code in ("image-not-found", "image-unreadable", "image-channels"):
        yield from flag_rows(code, facts["image_code"].eq(code), facts["image_problem"])
    bits = facts["bits"].where(scan.readable)
    if bits.nunique() > 1:
        texts = bits.astype("Int64").astype(str) + " bit"
        yield from flag_rows("image-depth-mixed", bits.notna() & bits.ne(bits.mode()[0]), texts)
    constant = scan.readable & facts["minimum"].eq(facts["maximum"])
    yield from flag_rows("image-constant", constant)
    bright = facts["brightest_fraction"].ge(SATURATED) & ~constant & scan.readable
    details = facts["brightest_fraction"].map("{:.0%} of the pixels have the highest value".format)
    yield from flag_rows("image-saturated", bright, details)
    turned = facts["orientation"].ne(UPRIGHT)
    orientations = "EXIF orientation " + facts["orientation"].astype(str)
    yield from flag_rows("image-orientation", turned, orientations)
    yield from flag_rows(
        "image-suffix",
        facts["actual_format"].ne(""),
        "contains " + facts["actual_format"].str.upper(),
    )


def _mask_findings(scan: Scan) -> Iterator[RowFinding]:
    facts, dataset = scan.facts, scan.dataset
    cases = dataset.cases
    for code in ("mask-not-found", "mask-unreadable", "mask-refused", "mask-size"):
        yield from flag_rows(code, facts["mask_code"].eq(code), facts["mask_problem"])
    readable = cases["mask"].ne("") & facts["mask_code"].eq("") & scan.readable
    area, free = facts["mask_area"], dataset.lesion_free
    pixels = area.astype(str) + " pixels"
    drawn = readable & area.gt(0)
    yield from flag_rows("mask-on-lesion-free", drawn & free, pixels)
    labeled = dataset.image_labels.ne("") & ~free
    yield from flag_rows("mask-empty", readable & area.eq(0) & labeled)
    few = np.maximum(FEW_PIXELS, FEW_FRACTION * facts["height"] * facts["width"])
    yield from flag_rows("mask-nearly-empty", drawn & area.lt(few), pixels)
    best = facts["mask_attainable"].map("{:.2f}".format)
    reached = "a lesion at best " + best + f" at {scan.image_size} px"
    yield from flag_rows("mask-detail", drawn & facts["mask_attainable"].lt(ATTAINABLE), reached)
    # Exchanging height and width would have changed the shape of the mask.
    same = facts["orientation"].between(2, 4) | facts["height"].eq(facts["width"])
    doubtful = drawn & facts["orientation"].ne(UPRIGHT) & same
    orientations = "EXIF orientation " + facts["orientation"].astype(str)
    yield from flag_rows("mask-orientation", doubtful, orientations)
    yield from flag_rows("mask-border", drawn & facts["mask_sides"].eq(4))
    unlisted = {
        row: ", ".join(path.name for path in paths) for row, paths in scan.unlisted_masks.items()
    }
    names = pd.Series(unlisted, dtype=object).reindex(range(len(cases)), fill_value="")
    yield from flag_rows("mask-left-out", names.ne(""), names)
    shared = cases["mask"].ne("") & cases.duplicated(["mask", "slice_index"], keep=False)
    yield from flag_rows("mask-shared", shared, cases["mask"])
    yield from flag_rows("mask-repaired", facts["mask_repair"].ne(""), facts["mask_repair"])
    yield from flag_rows("mask-layout", facts["mask_layout"].ne(""), facts["mask_layout"])
    merged = facts["mask_merged"]
    yield from flag_rows("mask-merged", merged.gt(1), "of " + merged.astype(str))


def _table_findings(scan: Scan) -> Iterator[RowFinding]:
    dataset = scan.dataset
    cases = dataset.cases
    # Volumes and groups do not identify the patient, who may have several.
    unidentified = cases["patient_id"].eq("")
    yield from flag_rows("patient-missing", unidentified)
    if dataset.spec.patients_from:
        origin = f"derived from {dataset.spec.patients_from}: " + cases["patient_id"]
        yield from flag_rows("patient-guessed", ~unidentified, origin)
    if dataset.spec.spacing_unit == "mm":
        yield from flag_rows("spacing-missing", cases["spacing_y"].isna())
    unlabeled = cases["label"].eq("")
    if dataset.spec.labels:
        yield from flag_rows("label-missing", unlabeled)
    yield from flag_rows("unused", unlabeled & cases["mask"].eq(""))


def image_label_sets(scan: Scan) -> list[frozenset[str]]:
    """Return the labels of each case that are about the image itself, not about its study."""
    return label_sets(scan.dataset, scan.dataset.image_labels)
