"""PNM and TIFF that Pillow reads only in part, or rounds: refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxseg.data.readers.images import read_image
from dxseg.data.readers.masks import read_mask
from dxseg.errors import DxsegError

VALUES = np.arange(24, dtype=np.uint8).reshape(4, 6) % 4


def pnm(path: Path, kind: str, highest: int, values: np.ndarray) -> Path:
    """A file of the kinds P2 and P3 (text), P5 and P6 (binary)."""
    head = f"{kind}\n# a comment\n{values.shape[1]} {values.shape[0]}\n{highest}\n".encode()
    text = " ".join(map(str, values.ravel())).encode()
    binary = values.astype(">u1" if highest < 256 else ">u2").tobytes()
    path.write_bytes(head + (text if kind in ("P2", "P3") else binary))
    return path


@pytest.mark.parametrize(
    ("kind", "highest"),
    [("P6", 65535), ("P6", 1023), ("P3", 65535), ("P5", 4095), ("P2", 4095), ("P5", 100)],
)
def test_a_pnm_whose_values_would_be_rounded_is_refused(
    tmp_path: Path, kind: str, highest: int
) -> None:
    values = np.dstack([VALUES] * 3) if kind in ("P3", "P6") else VALUES
    path = pnm(tmp_path / "a.pnm", kind, highest, values)
    with pytest.raises(DxsegError, match=rf"a\.pnm: PNM with the highest value {highest}"):
        read_image(path)


@pytest.mark.parametrize("kind", ["P2", "P5", "P3", "P6"])
def test_a_pnm_of_few_values_keeps_its_numbers(tmp_path: Path, kind: str) -> None:
    values = np.dstack([VALUES] * 3) if kind in ("P3", "P6") else VALUES
    path = pnm(tmp_path / "a.pnm", kind, 3, values)
    np.testing.assert_array_equal(read_mask(path, 3), VALUES)
    np.testing.assert_array_equal(read_image(path)[:, :, 0], VALUES * 85)


@pytest.mark.parametrize("kind", ["P2", "P5"])
@pytest.mark.parametrize("highest", [255, 65535])
def test_gray_pnm_of_8_and_16_bit_are_read_as_stored(
    tmp_path: Path, kind: str, highest: int
) -> None:
    values = (VALUES.astype(np.uint32) * highest // 3).astype(np.uint16)
    found = read_image(pnm(tmp_path / "a.pnm", kind, highest, values))
    assert found.dtype == (np.uint8 if highest == 255 else np.uint16)
    np.testing.assert_array_equal(found[:, :, 0], values)


def test_pages_with_palettes_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(VALUES, "P"), Image.fromarray(VALUES, "P")]
    for page in pages:
        page.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    pages[0].save(tmp_path / "one.tif")
    assert read_image(tmp_path / "one.tif").shape == (4, 6, 3)
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DxsegError, match=r"two\.tif: several pages of PALETTE"):
        read_image(tmp_path / "two.tif")
