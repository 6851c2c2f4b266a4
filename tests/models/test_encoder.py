"""Encoders of any family answer in one layout, finest first, with the strides they name."""

from __future__ import annotations

import math

import pytest
import torch

from dxseg.errors import UsageError
from dxseg.models.encoder import PyramidEncoder, pad_to_multiple

BACKBONES = {
    "tf_efficientnet_lite0": (2, 4, 8, 16, 32),
    "resnet10t": (2, 4, 8, 16, 32),
    "swinv2_tiny_window8_256": (4, 8, 16, 32),
}


@pytest.fixture(scope="module", params=BACKBONES)
def encoder(request: pytest.FixtureRequest) -> PyramidEncoder:
    return PyramidEncoder(request.param, 3).eval()


def test_every_level_is_channels_first_at_its_stride(encoder: PyramidEncoder) -> None:
    assert encoder.strides == BACKBONES[encoder.backbone_name]
    with torch.no_grad():
        features = encoder(torch.rand(2, 3, 64, 96))
    wanted = [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert [tuple(feature.shape) for feature in features] == wanted


@pytest.mark.parametrize("backbone", ["resnet10t", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_input_channels(backbone: str, channels: int) -> None:
    encoder = PyramidEncoder(backbone, channels).eval()
    assert len(encoder.mean) == len(encoder.std) == channels
    assert all(value > 0 for value in encoder.std)
    with torch.no_grad():
        assert encoder(torch.rand(1, channels, 32, 32))[0].shape[-1] == 16


def test_statistics_are_those_of_the_pretraining() -> None:
    rgb = PyramidEncoder("resnet10t", 3)
    assert rgb.mean == (0.485, 0.456, 0.406)
    assert rgb.std == (0.229, 0.224, 0.225)
    gray = PyramidEncoder("resnet10t", 1)
    assert gray.mean == pytest.approx((sum(rgb.mean) / 3,))


@pytest.mark.parametrize(
    "backbone",
    [
        "no_such_backbone",
        "",
        "vit_tiny_patch16_224",  # one resolution only: no pyramid
        "hf-hub:someone/something",  # would be fetched
        "local-dir:/tmp",
        "crossvit_9_240",  # strides 12 and 17
    ],
)
def test_a_backbone_that_is_no_pyramid_of_timm_is_refused(backbone: str) -> None:
    with pytest.raises(UsageError, match=r"model\.backbone"):
        PyramidEncoder(backbone, 3)


@pytest.mark.parametrize("size", [(32, 64), (33, 64), (31, 1), (95, 97)])
def test_padding_adds_zeros_below_and_right_only(size: tuple[int, int]) -> None:
    x = torch.rand(1, 2, *size) + 1
    padded = pad_to_multiple(x, 32)
    assert padded.shape[-2:] == tuple(32 * math.ceil(side / 32) for side in size)
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    assert padded.sum() == pytest.approx(x.sum())
    assert (padded is x) == (padded.shape == x.shape)
