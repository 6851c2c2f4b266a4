"""Generated folders: names x suffixes x layouts x labels; no mask is ever that of another image.

A mask may be left out, for then the report says so; it may never be an image, or of another image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dxseg.commands.app import run
from dxseg.data.importers.folder import FoundFolder, find_in_folders
from dxseg.data.importers.mask_owner import MaskNaming
from dxseg.data.importers.report import LeftOut
from dxseg.data.table.dataset import Dataset

_NAMES = (
    "a a_1 a_1_2 a1 A b b_left b_right 1 2 10 001 01 img_1 img_2 image1 raw_1 ISIC_0001 ISIC_0002 "
    "case-1 case-2 c.1 c.2 lesion_1 lesion_2 lesion label_3 scan_7 ct_4 mask segment_2 t1_5 t2_5 "
    "u_roi u P01_flair P01 t1_P01 t2_P01 été_1 e x_0000 x_0001 x groundtruth1"
)
NAMES = st.sampled_from(
    [*_NAMES.split(), "benign (1)", "benign (2)", "benign (1)_1", "a b", "a  b"]
)
_WORDS = (
    "mask Mask MASK masks seg Seg segmentation Segmentation gt GT groundtruth GroundTruth "
    "ground_truth label labels annotation lesion ROI contour outline_xyz xyz binary"
)
WORDS = st.sampled_from(_WORDS.split())
_STYLES = """{name}_{word}|{name}-{word}|{name}.{word}|{name} {word}|{name}{word}|{word}_{name}|
{word}-{name}|{name}_{word}_1|{name}_{word}_2|{name}_{word} (1)|{name}_old_{word}|
{name}_{word}_final|{name}"""
STYLES = st.sampled_from([style.strip() for style in _STYLES.split("|")])
_MASK_FOLDERS = (
    "masks mask gt GT labelsTr Segmentation ground_truth annotations Labels bin outlines"
)
MASK_FOLDERS = st.sampled_from(
    [*_MASK_FOLDERS.split(), "2. All Segmentation Groundtruths", "Masks of reader 1"]
)
IMAGE_FOLDERS = st.sampled_from(["images", "img", "imagesTr", "Original", "pics"])
LABELS = st.sampled_from(["benign", "malignant", "lesion", "no_mask", "1", "validation"])
_LAYOUTS = """
{label}/{file} {label}/{file}
{file} {file}
{images}/{file} {masks}/{file}
{images}/{label}/{file} {masks}/{label}/{file}
{label}/{images}/{file} {label}/{masks}/{file}
{label}/{file} {masks}/{file}
{images}/{label}/{file} {masks}/{file}
{label}/{file} {label}/{masks}/{file}
{label}_{images}/{file} {label}_{masks}/{file}
{label}/{file} {masks}/{label}/{file}
"""
LAYOUTS = st.sampled_from(_LAYOUTS.strip().splitlines())


@dataclass(frozen=True)
class Case:
    """An image, and how its mask is written if it has one."""

    name: str
    label: str
    masked: bool
    present: bool


CASES = st.lists(
    st.builds(
        Case,
        name=NAMES,
        label=LABELS,
        masked=st.booleans(),
        present=st.sampled_from([True, True, True, True, False]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda case: (case.label, case.name.casefold()),
)


@dataclass
class Folder:
    """A folder on disk, and which mask is of which image."""

    root: Path
    images: set[Path]
    owners: dict[Path, Path]


def write(root: Path, cases: list[Case], layout: str, style: str, words: dict[str, str]) -> Folder:
    """Write images of noise and masks of discs; files that would be one are written once."""
    image_place, mask_place = layout.split()
    folder = Folder(root, set(), {})
    rng = np.random.default_rng(len(cases))
    used: set[str] = set()
    for case in cases:
        file = f"{case.name}{words['image_type']}"
        image = root / image_place.format(label=case.label, file=file, **words)
        mask_name = style.format(name=case.name, word=words["word"]) + words["mask_type"]
        mask = root / mask_place.format(label=case.label, file=mask_name, **words)
        keys = [str(path).casefold() for path in (image, mask)]
        if used & set(keys) or keys[0] == keys[1]:
            continue
        used.update(keys)
        if case.present:
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8)).save(image)
            folder.images.add(image)
        # `lesion_1.png` alone beside `img_1.png` reads as its mask, whatever it was.
        if case.masked and (case.present or mask.stem != image.stem):
            mask.parent.mkdir(parents=True, exist_ok=True)
            y, x = np.mgrid[:24, :20]
            disc = ((y - 12) ** 2 + (x - rng.integers(6, 14)) ** 2 < 25).astype(np.uint8)
            Image.fromarray(disc * np.uint8(255)).save(mask)
            folder.owners[mask] = image
    return folder


FOLDERS = st.fixed_dictionaries(
    {
        "word": WORDS,
        "images": IMAGE_FOLDERS,
        "masks": MASK_FOLDERS,
        "image_type": st.sampled_from([".png", ".jpg", ".JPG", ".bmp"]),
        "mask_type": st.sampled_from([".png", ".PNG", ".tif", ".bmp"]),
    }
)


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()


def may_be_of(mask: Path, image: Path, folder: Folder) -> bool:
    """Whether the mask of an image that is not there reads as that of another one.

    `1_mask.png` beside `img_1.png` is such a mask if there is no `1.png`.
    """
    own = folder.owners[mask]
    return own not in folder.images and (own.stem in image.stem or image.stem in own.stem)


def check(folder: Folder, found: FoundFolder, left_out: LeftOut) -> None:
    files = sorted(str(path.relative_to(folder.root)) for path in folder.root.rglob("*.*"))
    paired = {mask: case.image for case in found.cases for mask in case.masks}
    # Photos named like masks (`groundtruth1.png` of `1.png`) are refused when they are read.
    masks = {mask: image for mask, image in paired.items() if mask in folder.owners}
    wrong = {
        mask: image
        for mask, image in masks.items()
        if folder.owners[mask] != image and not may_be_of(mask, image, folder)
    }
    assert not wrong, f"pairs of another image: {wrong} among {files}"
    # A mask without its image is a file of any name; `write_dataset` warns of what looks so.
    named = {mask for mask, image in folder.owners.items() if image in folder.images}
    taken = {case.image for case in found.cases} & named
    assert not taken, f"masks imported as images: {taken} among {files}"
    everything = {*paired, *(case.image for case in found.cases)}
    silent = {*folder.owners, *folder.images} - everything - {Path(file) for file, _ in left_out}
    assert not silent, f"neither imported nor named: {silent} among {files}"


def search(base: Path, cases: list[Case], layout: str, style: str, words: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = write(Path(name) / "in", cases, layout, style, words)
        if folder.images or folder.owners:
            left_out = LeftOut()
            found = find_in_folders(folder.root, None, MaskNaming(), Path(name) / "out", left_out)
            check(folder, found, left_out)


HOSTILE = given(cases=CASES, layout=LAYOUTS, style=STYLES, words=FOLDERS)
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@HOSTILE
def test_no_mask_is_of_another_image_or_an_image(base: Path, **drawn: Any) -> None:
    search(base, **drawn)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=SLOW)
@HOSTILE
def test_no_mask_is_of_another_image_in_many_folders(base: Path, **drawn: Any) -> None:
    search(base, **drawn)


@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
@HOSTILE
def test_the_command_ends_with_0_only_on_right_pairs(base: Path, **drawn: Any) -> None:
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = write(Path(name) / "in", **drawn)
        out = Path(name) / "out"
        if not folder.owners or run(["import", "folder", str(folder.root), str(out)]) != 0:
            return
        dataset = Dataset.load(out)
        for row in dataset.cases.itertuples():
            image, mask = dataset.image_path(row), dataset.mask_path(row)
            assert image not in folder.owners or folder.owners[image] not in folder.images
            assert mask is None or mask.is_relative_to(out) or folder.owners[mask] == image
