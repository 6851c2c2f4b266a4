"""A segmentation model as an ONNX graph."""

from __future__ import annotations

import copy
import io
import warnings

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from dxseg.models.segmentation_model import STRIDE, SegmentationModel

OPSET = 18
"""ONNX operator set; supported by every runtime of the last years."""

INPUT, KNOWN = "image", "known"
"""Names of the inputs; `known` is the label prompt, under the name that exported files have."""

OUTPUTS = ("mask_logits", "label_logits", "evidence")
"""Names of the outputs, of which a network may have fewer; see `SegmenterOutput`."""


def onnx_graph(
    segmenter: SegmentationModel, channels: int, image_size: int, *, any_size: bool
) -> bytes:
    """Trace a network.

    The input `image` is (B, C, H, W) float32, normalized, H and W multiples of 32; B is free.
    Networks with a coarse branch also have the input `known`, the label prompt of
    `SegmentationModel` with its values for "unknown".

    Args:
        segmenter: The network; it is not changed.
        channels: Channels of the images.
        image_size: Side of the square that the network was trained on, pixels.
        any_size: Whether H and W are free; else they are `image_size`, padded.

    Returns:
        A serialized ONNX model without metadata.
    """
    side = -(-image_size // STRIDE) * STRIDE
    # Neither square nor of one image, so that a size traced as a constant fails the parity check.
    shape = (2, channels, side, side + STRIDE) if any_size else (2, channels, side, side)
    traced = _Traced(_with_fixed_padding(copy.deepcopy(segmenter).to("cpu").eval()))
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    example, names = traced.example(image)
    inputs = [INPUT, KNOWN][: len(example)]
    spatial = {2: "height", 3: "width"} if any_size else {}
    low = {2: "evidence_height", 3: "evidence_width"} if any_size else {}
    axes = {
        INPUT: {0: "batch", **spatial},
        KNOWN: {0: "batch"},
        "mask_logits": {0: "batch", **spatial},
        "label_logits": {0: "batch"},
        "evidence": {0: "batch", **low},
    }
    stream = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # The tracer warns of everything that it treats as a constant; parity is checked instead.
        warnings.simplefilter("ignore")
        # The exporter of torch.export takes minutes for such a network; this one a second.
        torch.onnx.export(
            traced,
            example,
            stream,  # type: ignore[arg-type]  # streams are accepted, but not annotated
            dynamo=False,
            opset_version=OPSET,
            input_names=inputs,
            output_names=names,
            dynamic_axes={name: axes[name] for name in (*inputs, *names)},
        )
    return stream.getvalue()


class _Traced(nn.Module):
    """A segmentation model that returns a tuple of tensors, as the tracer expects."""

    def __init__(self, segmenter: SegmentationModel) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image: Tensor, label_prompt: Tensor | None = None) -> tuple[Tensor, ...]:
        # Not a call of the module: node names, and so the file, stay those of earlier versions.
        output = self.segmenter.forward(image, label_prompt)
        found = [getattr(output, name) for name in OUTPUTS]
        return tuple(value for value in found if value is not None)

    def example(self, image: Tensor) -> tuple[tuple[Tensor, ...], list[str]]:
        """Inputs to trace with, and the names of the outputs."""
        with torch.no_grad():
            output = self.segmenter(image)
        names = [name for name in OUTPUTS if getattr(output, name) is not None]
        # A label prompt acts on the evidence maps of a coarse branch.
        coarse = getattr(self.segmenter, "coarse", None)
        if coarse is None or output.label_logits is None:
            return (image,), names
        if coarse.multi_label:
            return (image, torch.full_like(output.label_logits, float("nan"))), names
        return (image, torch.full((len(image),), -1)), names


def _with_fixed_padding(network: SegmentationModel) -> SegmentationModel:
    """Replace TensorFlow's "same" padding, computed from each input, by fixed padding.

    Inputs are multiples of 32, so the input of every strided convolution is a multiple of its
    stride, and the padding is always the same. Runtimes merge fixed padding into the convolution.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv2dSame):
                setattr(parent, name, _padded(child))
    return network


def _padded(convolution: nn.Conv2d) -> nn.Sequential:
    height, width = (
        max((kernel - 1) * dilation + 1 - stride, 0)
        for kernel, dilation, stride in zip(
            convolution.kernel_size, convolution.dilation, convolution.stride, strict=True
        )
    )
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        convolution.stride,  # type: ignore[arg-type]
        dilation=convolution.dilation,  # type: ignore[arg-type]
        groups=convolution.groups,
        bias=convolution.bias is not None,
    )
    plain.load_state_dict(convolution.state_dict())
    sides = (width // 2, width - width // 2, height // 2, height - height // 2)
    return nn.Sequential(nn.ZeroPad2d(sides), plain)
