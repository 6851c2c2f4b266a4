"""Deep images keep their values for window and level on the page."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import numpy as np
import pytest

from dicom_phantom import make_image
from serving import png, sent

FIELDS = {"return_image": "true"}


def values_of(told: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    numbers = np.frombuffer(zlib.decompress(base64.b64decode(told["deflated"])), "<u2")
    return numbers.reshape(shape) * told["slope"] + told["intercept"]


def as_file(ds: Any) -> bytes:
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def test_ct_comes_in_hounsfield_units_with_its_window(make_client: Any) -> None:
    stored = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)
    ds = make_image(
        stored, Modality="CT", RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=40,
        WindowWidth=400, VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    client = make_client(high=65535.0)
    told = client.post("/v1/predict", **sent(as_file(ds)), data=FIELDS).json()["image_values"]
    assert np.array_equal(values_of(told, (32, 32)), 2.0 * stored - 1000)
    assert (told["unit"], told["window"]) == ("HU", [-160, 240])


def test_a_picture_of_16_bit_keeps_its_values(make_client: Any) -> None:
    pixels = np.random.default_rng(0).integers(100, 4096, (24, 40), dtype=np.uint16)
    client = make_client(high=65535.0)
    told = client.post("/v1/predict", **sent(png(pixels)), data=FIELDS).json()["image_values"]
    assert np.array_equal(values_of(told, (24, 40)), pixels)
    assert told["unit"] == ""
    assert told["window"] == pytest.approx(np.percentile(pixels, (0.5, 99.5)))


def test_8_bit_and_what_is_not_shown_have_none(make_client: Any) -> None:
    told = make_client().post("/v1/predict", **sent(png()), data=FIELDS).json()
    assert told["image_values"] is None
    deep = png(np.full((24, 40), 300, np.uint16))
    assert (
        make_client(high=65535.0).post("/v1/predict", **sent(deep)).json()["image_values"] is None
    )
