"""What a worker of an archive does: lists of images in, parts of the results out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dxseg.errors import DxsegError
from dxseg.inference.files.png import encode_png
from dxseg.inference.files.table_schema import image_values, model_name
from dxseg.inference.files.writers import mask_levels
from dxseg.inference.model_folder import ModelInfo
from dxseg.inference.prediction import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.inference.ray.parquet import MASK, part_name, write_part


@dataclass(frozen=True)
class ArchiveSettings:
    """How images are predicted; see `dxseg.inference.files.predict.predict_files`.

    Attributes:
        batch_size: Images through the network at once.
        backend: torch, onnxruntime or openvino; what suits the model if absent.
        precision: float32 or bfloat16.
        flip: Whether the mean with the mirrored image is taken.
        windows: Whether large images are cut into windows.
    """

    batch_size: int = 8
    backend: str | None = None
    precision: str = "float32"
    flip: bool = False
    windows: bool = False

    def load(self, bundle: str | Path) -> Predictor:
        """The model, ready; see `Predictor.from_folder` for what it raises."""
        return Predictor.from_folder(
            bundle,
            batch_size=self.batch_size,
            backend=self.backend,
            precision=self.precision,
            flip=self.flip,
            windows=self.windows,
        )


class PartPredictor:
    """What a worker is: a model in memory that turns lists of images into parts."""

    def __init__(
        self, bundle: str | Path, settings: ArchiveSettings, folder: Path, threads: int
    ) -> None:
        """Load the model.

        Args:
            bundle: The model folder, or an exported .onnx file.
            settings: How to predict.
            folder: Of the parts.
            threads: Of the network.
        """
        torch.set_num_threads(threads)
        self._predictor, self._folder = settings.load(bundle), folder

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Predict and write parts, as Ray Data asks for it.

        Args:
            batch: Under "part" the JSON of name, source and known label of each image, a part a
                row.

        Returns:
            The same rows; under "failed" the JSON of why images have no result, by name, in place
            of the part.
        """
        failed = [json.dumps(self._tried(json.loads(text))) for text in batch["part"]]
        return {"failed": failed, "size": batch["size"]}

    def _tried(self, images: list[list[str]]) -> dict[str, str]:
        try:
            return self.predict(images)
        except (DxsegError, OSError, MemoryError) as error:  # Ray would pass over it without a word
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return {name: reason for name, *_ in images}

    def predict(self, images: list[list[str]]) -> dict[str, str]:
        """Write the part of these images; done again, it writes the same file.

        Args:
            images: Name, source and known label of each.

        Returns:
            Why images have no row in it, by name.
        """
        info = self._predictor.info
        sources = {name: source for name, source, _ in images}
        known = {name: label for name, _, label in images if label}
        rows, failed = [], {}
        for name, result in self._predictor.stream(
            ((name, Path(source)) for name, source in sources.items()), known=known
        ):
            if isinstance(result, DxsegError):
                failed[name] = " ".join(str(result).split())
                continue
            rows.append(archive_row(name, sources[name], result, info))
        if rows:
            write_part(self._folder / part_name(sources), rows, info)
        return failed


def archive_row(name: str, source: str, prediction: Prediction, info: ModelInfo) -> dict[str, Any]:
    """What `write_part` takes of an image.

    Args:
        name: Of the image.
        source: Its file.
        prediction: What the model says of it.
        info: Of the model.
    """
    return {
        "name": name,
        "source": source,
        "model": model_name(info),
        **image_values(prediction, info),
        MASK: encode_png(mask_levels(prediction.mask, len(info.mask_classes))),
    }
