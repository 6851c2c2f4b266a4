"""Padding is in no window, and the bits are those that the header names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_phantom import make_image, make_series, save
from dxseg.data.readers.dicom.series import read_stack, series_in
from dxseg.data.readers.images import read_image
from dxseg.data.readers.sliced_volume import SlicedVolume
from dxseg.data.readers.slicing import Slicing
from dxseg.errors import DxsegError

MEASURED = np.random.default_rng(0).integers(-900, 900, (4, 6, 8))
WITHIN = np.zeros((6, 8), np.bool_)
WITHIN[1:5, 2:7] = True


def volume_of(folder: Path, objects: list[Dataset]) -> Any:
    for number, ds in enumerate(objects):
        save(ds, folder / f"{number}.dcm")
    return read_stack(series_in(folder))


def padded_series(value: int, **attributes: Any) -> list[Dataset]:
    """Slices whose border is padded: stored values, whatever they are after rescaling."""
    objects = make_series(MEASURED, intercept=0, **attributes)
    for ds, part in zip(objects, MEASURED, strict=True):
        ds.PixelData = np.where(WITHIN, part, value).astype(np.int16).tobytes()
    return objects


@pytest.mark.parametrize(
    ("value", "attributes"),
    [
        (-2000, {}),
        (-2000, {"PixelPaddingValue": -2000}),
        (2000, {"PixelPaddingValue": 2000}),
        (2000, {"PixelPaddingValue": 1500, "PixelPaddingRangeLimit": 2500}),
        (2000, {"PixelPaddingValue": 2500, "PixelPaddingRangeLimit": 1500}),
        (2000, {"PixelPaddingValue": 2000, "Modality": "MR"}),
    ],
)
def test_padding_of_a_series_is_in_no_window(
    tmp_path: Path, value: int, attributes: dict[str, Any]
) -> None:
    volume = volume_of(tmp_path, padded_series(value, **attributes))
    inside = np.broadcast_to(WITHIN, MEASURED.shape)
    voxels = volume.voxels.transpose(2, 1, 0)
    assert np.array_equal(np.isnan(voxels), ~inside)
    assert np.array_equal(voxels[inside], MEASURED[inside])
    assert volume.notes == (f"{(~inside).sum()} voxels are padding: black, and in no percentile",)
    sliced = SlicedVolume(volume, Slicing(axis="axial", percentiles=(0, 100)))
    gray = np.stack([sliced.image(index)[:, :, 0] for index in range(4)])
    assert not gray[~inside].any()
    low, high = MEASURED[inside].min(), MEASURED[inside].max()
    expected = np.rint(255 * (MEASURED[inside] - low) / (high - low))
    assert np.abs(gray[inside] - expected).max() <= 1


@pytest.mark.parametrize("bits", [12, 16])
def test_padding_may_use_more_bits_than_are_stored(tmp_path: Path, bits: int) -> None:
    values = np.where(WITHIN, np.random.default_rng(0).integers(0, 4096, (6, 8)), 63536)
    ds = make_image(values.astype(np.uint16), BitsStored=bits, HighBit=bits - 1)
    ds.PixelPaddingValue = 63536
    shown = read_image(save(ds, tmp_path / "a.dcm"))[:, :, 0]
    assert not shown[~WITHIN].any()
    expected = np.rint(values[WITHIN] * (65535 / (2**bits - 1)))
    assert np.abs(shown[WITHIN] - expected).max() <= 1


def test_padding_of_another_sign_than_its_samples(tmp_path: Path) -> None:
    objects = padded_series(-2000, Modality="MR")
    for ds in objects:
        ds.add_new("PixelPaddingValue", "US", 63536)
    assert np.isnan(volume_of(tmp_path, objects).voxels).any()


def test_without_padding_a_series_stays_whole_numbers(tmp_path: Path) -> None:
    volume = volume_of(tmp_path, make_series(MEASURED, PixelPaddingValue=-2000, intercept=0))
    assert volume.voxels.dtype == np.int16
    assert volume.notes == ()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_of_an_image_is_black(tmp_path: Path, photometric: str) -> None:
    pixels = np.full((6, 8), 100, np.uint8)
    pixels[:, :3] = 200
    attributes = {"PixelPaddingValue": 200, "PhotometricInterpretation": photometric}
    shown = read_image(save(make_image(pixels, **attributes), tmp_path / "a.dcm"))[:, :, 0]
    assert not shown[:, :3].any()
    assert (shown[:, 3:] == (155 if photometric == "MONOCHROME1" else 100)).all()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("junk", [0, 1])
@pytest.mark.parametrize(("stored", "high"), [(12, 15), (12, 13), (8, 15), (12, 11)])
def test_the_high_bit_is_where_the_header_says(
    tmp_path: Path, signed: bool, junk: int, stored: int, high: int
) -> None:
    low, top = (-(2 ** (stored - 1)), 2 ** (stored - 1)) if signed else (0, 2**stored)
    values = np.random.default_rng(0).integers(low, top, (6, 8))
    shift = high + 1 - stored
    raw = values << shift
    if shift:
        # Bits that are not used may hold anything.
        raw = (raw & (2 ** (high + 1) - 1)) | junk * (2**shift - 1)
        raw |= junk << 15 if high < 15 else 0
    attributes = {"BitsStored": stored, "HighBit": high, "PixelRepresentation": int(signed)}
    plain = {**attributes, "HighBit": stored - 1}
    one = save(make_image(raw.astype(np.uint16), **attributes), tmp_path / "one.dcm")
    two = save(make_image(values.astype(np.uint16), **plain), tmp_path / "two.dcm")
    assert np.array_equal(read_image(one), read_image(two))


@pytest.mark.parametrize("high", [3, 16, 200])
def test_a_high_bit_that_cannot_be_is_refused(tmp_path: Path, high: int) -> None:
    ds = make_image(np.zeros((6, 8), np.uint16), BitsStored=12, HighBit=high)
    with pytest.raises(DxsegError, match=rf"highest bit is {high} \(HighBit\).*expected 11"):
        read_image(save(ds, tmp_path / "a.dcm"))
