"""Findings about single cases: their files, masks and labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from dxseg.data.splits.groups import label_sets
from dxseg.quality.row_findings import RowFinding, flag_rows
from dxseg.quality.scan import Survey

SATURATED = 0.5
FEW_PIXELS, FEW_SHARE = 10, 1e-4
RARE_GROUPS = 10


def file_findings(found: Survey) -> list[RowFinding]:
    """Say what is wrong with images and masks.

    Args:
        found: What is known of the files.
    """
    return [*_images(found), *_masks(found), *_table(found)]


def _images(found: Survey) -> Iterator[RowFinding]:
    facts = found.facts
    for code in ("image-not-found", "image-unreadable", "image-channels"):
        yield from flag_rows(code, facts["image_code"].eq(code), facts["image_problem"])
    bits = facts["bits"].where(found.readable)
    if bits.nunique() > 1:
        described = bits.astype("Int64").astype(str) + " bit"
        yield from flag_rows("image-depth-mixed", bits.notna() & bits.ne(bits.mode()[0]), described)
    constant = found.readable & facts["minimum"].eq(facts["maximum"])
    yield from flag_rows("image-constant", constant)
    bright = facts["brightest_share"].ge(SATURATED) & ~constant & found.readable
    share = facts["brightest_share"].map("{:.0%} of the pixels have the highest value".format)
    yield from flag_rows("image-saturated", bright, share)
    yield from flag_rows(
        "image-suffix", facts["disguised"].ne(""), "holds " + facts["disguised"].str.upper()
    )


def _masks(found: Survey) -> Iterator[RowFinding]:
    facts, dataset = found.facts, found.dataset
    cases = dataset.cases
    for code in ("mask-not-found", "mask-unreadable", "mask-refused", "mask-size"):
        yield from flag_rows(code, facts["mask_code"].eq(code), facts["mask_problem"])
    understood = cases["mask"].ne("") & facts["mask_code"].eq("") & found.readable
    area, free = facts["mask_area"], dataset.lesion_free
    pixels = area.astype(str) + " pixels"
    drawn = understood & area.gt(0)
    yield from flag_rows("mask-on-lesion-free", drawn & free, pixels)
    named = dataset.image_labels.ne("") & ~free
    yield from flag_rows("mask-empty", understood & area.eq(0) & named)
    few = np.maximum(FEW_PIXELS, FEW_SHARE * facts["height"] * facts["width"])
    yield from flag_rows("mask-nearly-empty", drawn & area.lt(few), pixels)
    yield from flag_rows("mask-border", drawn & facts["mask_sides"].eq(4))
    beside = {row: ", ".join(path.name for path in paths) for row, paths in found.left_out.items()}
    names = pd.Series(beside, dtype=object).reindex(range(len(cases)), fill_value="")
    yield from flag_rows("mask-left-out", names.ne(""), names)
    shared = cases["mask"].ne("") & cases.duplicated(["mask", "slice_index"], keep=False)
    yield from flag_rows("mask-shared", shared, cases["mask"])
    yield from flag_rows("mask-repaired", facts["mask_repair"].ne(""), facts["mask_repair"])
    yield from flag_rows("mask-layout", facts["mask_layout"].ne(""), facts["mask_layout"])
    united = facts["mask_united"]
    yield from flag_rows("mask-united", united.gt(1), "of " + united.astype(str))


def _table(found: Survey) -> Iterator[RowFinding]:
    dataset = found.dataset
    cases = dataset.cases
    # The column group says what may not be divided, not whose the image is.
    nobody = cases["patient_id"].eq("") & cases["volume_id"].eq("")
    yield from flag_rows("patient-missing", nobody)
    if dataset.spec.spacing_unit == "mm":
        yield from flag_rows("spacing-missing", cases["spacing_y"].isna())
    unlabelled = cases["label"].eq("")
    if dataset.spec.labels:
        yield from flag_rows("label-missing", unlabelled)
    yield from flag_rows("unused", unlabelled & cases["mask"].eq(""))


def image_label_sets(found: Survey) -> list[frozenset[str]]:
    """Give the labels of each case that speak of the image itself, not of its study."""
    return label_sets(found.dataset, found.dataset.image_labels)
