"""EXIF orientation: pixels, masks and sizes are of the picture as viewers show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from dxseg.data.readers.images import image_orientation, image_size, read_image
from dxseg.data.readers.masks import inspect_mask
from dxseg.data.readers.orientation import as_shown

STORED = np.random.default_rng(0).integers(0, 255, (5, 8, 3)).astype(np.uint8)


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[274] = orientation
    return made


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_every_orientation_is_applied_as_pillow_does(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(STORED).save(path, exif=exif(orientation), quality=100, lossless=True)
    with Image.open(path) as opened:
        shown = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(read_image(path), shown)
    assert image_size(path) == shown.shape[:2]
    assert image_orientation(path) == orientation
    assert read_image(path).flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_png_and_palettes_in_tiff_are_turned_too(tmp_path: Path, orientation: int) -> None:
    expected = as_shown(STORED, orientation)
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "deep.tif", STORED.astype(np.uint16) * 257, extratags=tags)
    assert np.array_equal(read_image(tmp_path / "deep.tif"), expected.astype(np.uint16) * 257)
    indexed = Image.fromarray(STORED).quantize(16)
    indexed.save(tmp_path / "palette.tif", exif=exif(orientation))
    colors = as_shown(np.asarray(indexed.convert("RGB")), orientation)
    assert np.array_equal(read_image(tmp_path / "palette.tif"), colors)
    assert image_size(tmp_path / "palette.tif") == expected.shape[:2]
    assert image_orientation(tmp_path / "palette.tif") == orientation


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_mask_with_an_orientation_of_its_own_is_turned(tmp_path: Path, orientation: int) -> None:
    stored = (STORED[:, :, 0] > 128).astype(np.uint8) * 255
    Image.fromarray(stored).save(tmp_path / "m.png", exif=exif(orientation))
    mask = inspect_mask(tmp_path / "m.png", 1).mask
    assert np.array_equal(mask * 255, as_shown(stored, orientation))


@pytest.mark.parametrize(
    "value", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\xff" * 99]
)
def test_damaged_exif_is_no_orientation(tmp_path: Path, value: bytes) -> None:
    Image.fromarray(STORED).save(tmp_path / "a.png", exif=value)
    assert np.array_equal(read_image(tmp_path / "a.png"), STORED)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_do_not_exist_count_as_none(tmp_path: Path, orientation: int) -> None:
    Image.fromarray(STORED).save(tmp_path / "a.png", exif=exif(orientation))
    assert np.array_equal(read_image(tmp_path / "a.png"), STORED)
    assert image_orientation(tmp_path / "a.png") == 1
