"""What distinguishes the name of an image, and which names have a word for masks."""

from __future__ import annotations

import pytest

from dxseg.data.importers.bids_names import structure
from dxseg.data.importers.mask_names import core, has_mask_word


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("benign (12)", "benign (12"),
        ("__Patient-07_", "patient-07"),
        ("IMG_007", "007"),
        ("case T1 4", "case 4"),
        ("İ", "i̇"),
        ("image", ""),
        ("___", ""),
    ],
)
def test_an_image_is_named_by_what_is_no_word_for_images(name: str, expected: str) -> None:
    assert core(name) == expected


@pytest.mark.parametrize("name", ["a_Mask", "GT2", "ISIC_1GroundTruth", "a ground_truth", "Roi-1"])
def test_a_word_marks_a_mask(name: str) -> None:
    assert has_mask_word(name)


@pytest.mark.parametrize("name", ["dermask", "unmasked", "lightground", "segovia", "heroin", "a"])
def test_a_part_of_a_word_marks_none(name: str) -> None:
    assert not has_mask_word(name)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("sub-1_space-orig_label-lesion_mask", "lesion"),
        ("sub-1_space-orig_res-2mm_label-enhancingTumor_mask", "enhancing_tumor"),
        ("sub-1_space-MNI_label-L_desc-T1lesion_mask", "lesion"),
        ("sub-1_desc-edema_mask", "edema"),
        ("sub-1_desc-preproc_mask", ""),
        ("sub-1_desc-manual_mask", ""),
        ("sub-1_hemi-L_den-32k_mask", ""),
        ("case-1_label-lesion_mask", ""),
    ],
)
def test_a_name_of_bids_says_what_a_mask_shows(mask: str, expected: str) -> None:
    assert structure(mask, "sub-1_desc-preproc_T1w") == expected
