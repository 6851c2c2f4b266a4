"""The packaged ImageNet weights see; an absent hub is said, not hidden."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import skimage.data
import timm
import torch
from PIL import Image
from torch import nn

from dxseg.models.encoder import PyramidEncoder
from dxseg.models.weights import lite0_package_weights, load_pretrained

PHOTOGRAPHS: dict[str, tuple[Callable[[], Any], set[int]]] = {
    "cat": (skimage.data.cat, {281, 282, 285}),  # tabby, tiger cat, Egyptian cat
    "coffee": (skimage.data.coffee, {967, 968}),  # espresso, cup
    "rocket": (skimage.data.rocket, {657, 744}),  # missile, projectile
    "camera": (skimage.data.camera, {872}),  # tripod
    "motorcycle": (lambda: skimage.data.stereo_motorcycle()[0], {665, 670}),  # moped, motor scooter
}
"""Photographs inside scikit-image's wheel, and the ImageNet-1k classes that are right for them."""


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    network.load_state_dict(lite0_package_weights(network), strict=True)
    return network.eval()


@pytest.fixture(scope="module")
def encoder() -> PyramidEncoder:
    encoder = PyramidEncoder("tf_efficientnet_lite0", 3)
    assert load_pretrained(encoder)
    return encoder.eval()


def prepared(photograph: np.ndarray, encoder: PyramidEncoder) -> torch.Tensor:
    """The central square at 224 pixels, standardized as the encoder says."""
    image = Image.fromarray(photograph).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.BICUBIC)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (encoder.mean, encoder.std))
    return (pixels - mean) / std


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_recognised(
    name: str, classifier: nn.Module, encoder: PyramidEncoder
) -> None:
    photograph, right = PHOTOGRAPHS[name]
    with torch.no_grad():
        logits = classifier(prepared(photograph(), encoder))[0]
    best = logits.topk(5).indices.tolist()
    assert best[0] in right
    assert logits.softmax(0)[list(right)].sum() > 0.3


def test_the_pyramid_holds_the_same_network(classifier: Any, encoder: PyramidEncoder) -> None:
    """The classifier's head on our deepest feature gives the classifier's own answer."""
    image = prepared(skimage.data.coffee(), encoder)
    with torch.no_grad():
        deepest = classifier.bn2(classifier.conv_head(encoder(image)[-1]))
        logits = classifier.forward_head(deepest)
        assert torch.allclose(logits, classifier(image), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 5])
def test_the_first_convolution_is_adapted_to_the_channels(
    channels: int, encoder: PyramidEncoder
) -> None:
    """One channel takes the sum of the three kernels; more repeat them at the same strength."""
    adapted = PyramidEncoder("tf_efficientnet_lite0", channels)
    assert load_pretrained(adapted)
    rgb = encoder.body.conv_stem.weight
    repeated = torch.cat([rgb, rgb], dim=1)[:, :channels] * 3 / channels
    wanted = rgb.sum(dim=1, keepdim=True) if channels == 1 else repeated
    assert torch.allclose(adapted.body.conv_stem.weight, wanted)
    rest = {n: t for n, t in encoder.body.state_dict().items() if n != "conv_stem.weight"}
    assert all(torch.equal(adapted.body.state_dict()[name], rest[name]) for name in rest)


def test_weights_that_do_not_fit_are_refused() -> None:
    other = timm.create_model("tf_efficientnet_lite0", pretrained=False, in_chans=1)
    with pytest.raises(ValueError, match="shape"):
        lite0_package_weights(other)
    with pytest.raises(ValueError, match="zip"):
        lite0_package_weights(timm.create_model("mobilenetv3_small_050", pretrained=False))


def test_without_the_hub_weights_stay_random_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = PyramidEncoder("mobilenetv3_small_050", 3)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}

    def unreachable(*_: Any, **__: Any) -> nn.Module:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with caplog.at_level(logging.WARNING):
        assert not load_pretrained(encoder)
    assert all(torch.equal(before[name], t) for name, t in encoder.state_dict().items())
    message = caplog.text
    assert "mobilenetv3_small_050" in message
    assert "random weights" in message
    assert "preset 'cpu'" in message


def test_weights_from_the_hub_are_copied_and_adapted(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = timm.create_model("mobilenetv3_small_050", pretrained=False, features_only=True)
    asked: list[Any] = []

    def create(name: str, **arguments: Any) -> nn.Module:
        asked.append((name, arguments))
        return hub

    encoder = PyramidEncoder("mobilenetv3_small_050", 1)
    monkeypatch.setattr(timm, "create_model", create)
    assert load_pretrained(encoder)
    assert asked == [("mobilenetv3_small_050", {"pretrained": True, "features_only": True})]
    stem = hub.conv_stem.weight.sum(dim=1, keepdim=True)
    assert torch.allclose(encoder.body.conv_stem.weight, stem)
    assert torch.equal(encoder.body.blocks[0][0].conv_dw.weight, hub.blocks[0][0].conv_dw.weight)
