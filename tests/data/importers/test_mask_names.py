"""What distinguishes the name of an image, and which names have a word for masks."""

from __future__ import annotations

import pytest

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
