"""Masks are read right, repaired and told, or refused: never guessed."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from dxseg.data.readers.masks import inspect_mask, read_mask, read_masks_merged
from dxseg.errors import DxsegError


def disc(size: int = 96, radius: float = 25) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size]
    return np.asarray((y - size / 2) ** 2 + (x - size / 2) ** 2 < radius**2)


def save(path: Path, array: npt.NDArray[Any], **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("value", [1, 255, 128, 200])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_two_valued_masks(tmp_path: Path, value: int, suffix: str) -> None:
    path = save(tmp_path / f"m{suffix}", disc() * np.uint8(value))
    reading = inspect_mask(path, 1)
    assert reading.mask.dtype == np.uint8
    assert reading.repair == ""
    np.testing.assert_array_equal(reading.mask, disc())


def test_masks_in_other_clothes(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    white = disc() * np.uint8(255)
    rgba = np.stack([white, white, white, np.full_like(white, 255)], axis=2)
    palette = Image.fromarray(disc().astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    inverted = Image.fromarray((~disc()).astype(np.uint8), mode="P")
    inverted.putpalette([255, 255, 255, 0, 0, 0])
    for image in [
        Image.fromarray(disc()),
        Image.fromarray(rgba),
        Image.fromarray(rgba[:, :, :3]),
        Image.fromarray(disc() * np.uint16(65535)),
        palette,
        inverted,
    ]:
        image.save(path)
        np.testing.assert_array_equal(read_mask(path, 1), disc())
    save(path, np.zeros((4, 4), dtype=np.uint8))
    assert not read_mask(path, 1).any()
    save(path, np.full((4, 4), 255, dtype=np.uint8))
    assert read_mask(path, 1).all()


def test_low_bit_label_maps_keep_their_numbers(tmp_path: Path) -> None:
    # Pillow writes no 2-bit gray: header (4 x 1 pixels, depth 2, gray) and one filtered row.
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" + bytes([0b00011011]))),
        (b"IEND", b""),
    ]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + checksum
    (tmp_path / "m.png").write_bytes(content)
    assert read_mask(tmp_path / "m.png", 3).tolist() == [[0, 1, 2, 3]]


def test_anti_aliased_edges_are_cut_at_half(tmp_path: Path) -> None:
    large = Image.fromarray(disc(384, 100) * np.uint8(255))
    small = large.resize((96, 96), Image.Resampling.BILINEAR)
    small.save(tmp_path / "m.png")
    reading = inspect_mask(tmp_path / "m.png", 1)
    assert "half" in reading.repair
    np.testing.assert_array_equal(reading.mask, np.asarray(small) >= 128)
    assert abs(int(reading.mask.sum()) - np.pi * 25**2) < 40


@pytest.mark.parametrize("quality", [50, 60, 75, 85, 95])
def test_jpeg_masks_are_repaired(tmp_path: Path, quality: int) -> None:
    path = save(tmp_path / "m.jpg", disc() * np.uint8(255), quality=quality)
    reading = inspect_mask(path, 1)
    assert "half" in reading.repair
    assert (reading.mask != disc()).mean() < 0.005


@pytest.mark.parametrize(
    "values",
    [
        gaussian_filter(disc() * 255.0, 8).astype(np.uint8),
        disc() * np.uint8(255) // np.uint8(2) + disc(radius=10) * np.uint8(128),
        disc() * np.uint8(1) + disc(radius=10) * np.uint8(254),
        disc() * np.uint8(2),
        disc() * np.uint8(100),
        np.arange(96 * 96, dtype=np.uint16).reshape(96, 96),
    ],
    ids=["soft", "half-gray region", "void 1 beside 255", "label 2", "dark", "ramp"],
)
def test_one_class_masks_that_need_guessing_are_refused(
    tmp_path: Path, values: npt.NDArray[Any]
) -> None:
    with pytest.raises(DxsegError, match=r"m\.png.*expected"):
        read_mask(save(tmp_path / "m.png", values), 1)


def test_color_and_transparent_masks_are_refused(tmp_path: Path) -> None:
    red = np.zeros((96, 96, 3), dtype=np.uint8)
    red[disc(), 0] = 255
    with pytest.raises(DxsegError, match="color mask"):
        read_mask(save(tmp_path / "m.png", red), 1)
    hidden = np.zeros((96, 96, 4), dtype=np.uint8)
    hidden[disc(), 3] = 255
    with pytest.raises(DxsegError, match="transparency"):
        read_mask(save(tmp_path / "m.png", hidden), 1)


def test_label_maps_of_several_classes(tmp_path: Path) -> None:
    labels = disc().astype(np.uint8) + disc(radius=10)
    path = save(tmp_path / "m.png", labels)
    np.testing.assert_array_equal(read_mask(path, 2), labels)
    np.testing.assert_array_equal(read_mask(path, 5), labels)
    for wrong in (labels * 127, disc() * np.uint8(255), labels + disc(radius=4)):
        with pytest.raises(DxsegError, match="expected 0 to 2"):
            read_mask(save(path, wrong.astype(np.uint8)), 2)
    palette = Image.fromarray(labels, mode="P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    palette.save(path)
    np.testing.assert_array_equal(read_mask(path, 2), labels)
    void = np.where(disc(radius=30) & ~disc(), 255, labels).astype(np.uint8)
    palette = Image.fromarray(void, mode="P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [224, 224, 192] * 253)
    palette.save(path)
    for classes in (1, 2):
        with pytest.raises(DxsegError, match="255"):
            read_mask(path, classes)


def test_merging_is_or_and_refuses_other_sizes(tmp_path: Path) -> None:
    left, right = disc(), np.roll(disc(), 20, axis=1)
    first = save(tmp_path / "a.png", left * np.uint8(255))
    second = save(tmp_path / "b.png", right * np.uint8(1))
    np.testing.assert_array_equal(read_masks_merged([first, second], 1), left | right)
    other = save(tmp_path / "c.png", disc(90) * np.uint8(255))
    with pytest.raises(DxsegError, match=r"c\.png.*90 x 90"):
        read_masks_merged([first, other], 1)


def test_a_mask_of_five_different_channels_is_refused_by_name(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(
        tmp_path / "m.tif", np.random.default_rng(0).integers(0, 255, (5, 7, 11), "u1")
    )
    with pytest.raises(DxsegError, match=r"m\.tif: a color mask"):
        inspect_mask(tmp_path / "m.tif", 1)
