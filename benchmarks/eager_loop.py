"""A short script around a segmentation-models-pytorch U-Net: the peer of `dxseg predict`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dxseg.config.presets import load_config

BATCH = 8
Network = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def eager_networks(folder: Path, size: int, channels: int) -> dict[str, Network]:
    """The U-Net of the plain loop, and its export."""
    import onnxruntime
    import segmentation_models_pytorch as smp

    model = load_config("cpu", "unet").model
    network = smp.Unet(
        f"tu-{model.backbone}",
        encoder_weights=None,
        in_channels=channels,
        classes=1,
        decoder_channels=list(model.decoder_channels),
    ).eval()
    path = folder / "eager.onnx"
    torch.onnx.export(
        network,
        (torch.zeros(BATCH, channels, size, size),),
        str(path),
        dynamo=False,
        input_names=["x"],
        dynamic_axes={"x": {0: "batch"}},
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options)

    def eager(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with torch.no_grad():
            return network(torch.from_numpy(x)).numpy()

    return {"eager": eager, "eager, exported": lambda x: session.run(None, {"x": x})[0]}


def plain_loop(files: list[Path], network: Network, output: Path, size: int) -> None:
    """What a short script does."""
    output.mkdir(parents=True)
    for start in range(0, len(files), BATCH):
        some = files[start : start + BATCH]
        sizes, inputs = [], []
        for path in some:
            with Image.open(path) as opened:
                image = opened.convert(opened.mode)
            sizes.append(image.size)
            pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), np.float32)
            inputs.append((pixels.reshape(size, size, -1) / 255 - 0.5) / 0.5)
        batch = np.ascontiguousarray(np.stack(inputs).transpose(0, 3, 1, 2))
        found = 1 / (1 + np.exp(-network(batch)))
        for path, native, probability in zip(some, sizes, found, strict=True):
            restored = Image.fromarray(probability[0]).resize(native, Image.Resampling.BILINEAR)
            mask = (np.asarray(restored) >= 0.5).astype(np.uint8) * 255
            Image.fromarray(mask).save(output / f"{path.stem}.png")
