"""The worker process of an archive: lists of images in, part files of the results out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dxseg.errors import DxsegError
from dxseg.inference.files.png import encode_png, mask_levels
from dxseg.inference.files.table import image_values, settings_name
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.inference.ray.parquet import MASK, part_name, write_part


class PartPredictor:
    """Holds a model in memory and predicts lists of images into part files."""

    def __init__(
        self, model: str | Path, options: Mapping[str, Any], folder: Path, threads: int
    ) -> None:
        """Load the model.

        Args:
            model: The model folder, or an exported .onnx file.
            options: Of `Predictor.from_folder`.
            folder: For the part files.
            threads: Of the network.
        """
        torch.set_num_threads(threads)
        self._predictor, self._folder = Predictor.from_folder(model, **options), folder

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Predict and write parts; the interface of Ray Data.

        Args:
            batch: One row per part; "part" is the JSON of name, source and label prompt of each
                image.

        Returns:
            The same rows; "failed" is the JSON of why images have no result, by name.
        """
        failed = [json.dumps(self._predict_or_explain(json.loads(text))) for text in batch["part"]]
        return {"failed": failed, "size": batch["size"]}

    def _predict_or_explain(self, images: list[list[str]]) -> dict[str, str]:
        try:
            return self.predict(images)
        except (DxsegError, OSError, MemoryError) as error:  # Ray would drop the part silently
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return {name: reason for name, *_ in images}

    def predict(self, images: list[list[str]]) -> dict[str, str]:
        """Predict images and write their part file; the same images give the same file name.

        Args:
            images: Name, source and label prompt of each.

        Returns:
            The images without a row in it, by name, with the reason.
        """
        info, model = self._predictor.info, settings_name(self._predictor)
        sources = {name: source for name, source, _ in images}
        labels = {name: label for name, _, label in images if label}
        rows, failed = [], {}
        for name, result in self._predictor.stream(
            ((name, Path(source)) for name, source in sources.items()), labels=labels
        ):
            if isinstance(result, DxsegError):
                failed[name] = " ".join(str(result).split())
                continue
            row = archive_row(name, sources[name], result, info)
            rows.append(row | {"model": model})
        if rows:
            write_part(self._folder / part_name(sources), rows, info)
        return failed


def archive_row(name: str, source: str, prediction: Prediction, info: ModelInfo) -> dict[str, Any]:
    """The row of an image in a part file, but its model.

    Args:
        name: Of the image.
        source: Its file.
        prediction: For the image.
        info: Of the model.
    """
    return {
        "name": name,
        "source": source,
        **image_values(prediction, info),
        MASK: encode_png(mask_levels(prediction.mask, len(info.mask_classes))),
    }
