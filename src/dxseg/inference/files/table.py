"""The table `predictions.csv`: its columns, and writing it so that a killed call can resume."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.errors import DxsegError
from dxseg.inference.files.volumes import VolumePrediction
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.io.atomic import atomic_path, sha256_json

Row = dict[str, str]

LABEL_PROMPT = "label_prompt"
AREA, VOLUME = "lesion_area_px", "lesion_volume_mm3"


def columns(info: ModelInfo) -> list[str]:
    """Column names of a model's table; a model of slices has columns for volumes too."""
    several = info.mask_classes if len(info.mask_classes) > 1 else []
    sliced = info.slicing is not None
    return [
        *("name", "height", "width"),
        *(("slices",) if sliced else ()),
        "status",
        *((LABEL_PROMPT,) if info.labels else ()),
        *(f"p_{label}" for label in info.labels),
        *(AREA, *(f"{AREA}_{name}" for name in several)),
        *((VOLUME, *(f"{VOLUME}_{name}" for name in several)) if sliced else ()),
        *("confidence", "error", "source", "model"),
    ]


def model_name(info: ModelInfo) -> str:
    """The first digits of the weights' SHA-256."""
    return info.weights_sha256[:12]


def deciding(info: ModelInfo) -> dict[str, Any]:
    """What of `model.json` masks depend on, beside the weights and the sliding window."""
    without = {"training", "dxseg_version", "sliding_window", "lesion_classes"}
    values = info.model_dump(mode="json", exclude=without)
    if values["components"] and not values["components"]["min_volume_mm3"]:
        del values["components"]["min_volume_mm3"]  # as before it existed
    return values


def settings_name(predictor: Predictor) -> str:
    """The model's name, and the first digits of the digest of all else that its masks depend on."""
    settings = [deciding(predictor.info), predictor.flip, predictor.info.sliding_window]
    digest = sha256_json(settings)
    return f"{model_name(predictor.info)}-{digest[:8]}"


def image_values(prediction: Prediction, info: ModelInfo) -> Row:
    """Cells of an image's row."""
    height, width = prediction.mask.shape
    return {
        "height": str(height),
        "width": str(width),
        **_label_prompt(prediction.label_prompt, info),
        **_labels(prediction.label_probabilities),
        **{name: str(count) for name, count in _sizes(AREA, prediction.mask, info).items()},
        "confidence": f"{prediction.confidence:.6f}",
    }


def volume_values(prediction: VolumePrediction, info: ModelInfo) -> Row:
    """Cells of a volume's row; height and width are those of its slices."""
    slices, height, width = prediction.slices.shape
    sizes = _sizes(VOLUME, prediction.slices, info)
    return {
        "height": str(height),
        "width": str(width),
        "slices": str(slices),
        **_label_prompt(prediction.label_prompt, info),
        **_labels(prediction.label_probabilities),
        **{name: f"{count * prediction.voxel_mm3:.3f}" for name, count in sizes.items()},
        "confidence": f"{prediction.confidence:.6f}",
    }


def _labels(probabilities: dict[str, float] | None) -> Row:
    return {f"p_{label}": f"{value:.6f}" for label, value in (probabilities or {}).items()}


def _label_prompt(text: str, info: ModelInfo) -> Row:
    return {LABEL_PROMPT: text} if info.labels else {}


def _sizes(column: str, mask: NDArray[np.uint8], info: ModelInfo) -> dict[str, int]:
    """Number of pixels or voxels of all lesions, and of each class where there are several."""
    # Class by class: numpy's bincount converts every pixel to int64 first.
    counts = {
        name: int(np.count_nonzero(mask == number))
        for number, name in enumerate(info.mask_classes, 1)
    }
    sizes = {column: sum(counts[name] for name in info.lesion_names)}
    if len(counts) > 1:
        sizes |= {f"{column}_{name}": count for name, count in counts.items()}
    return sizes


class PredictionTable:
    """`predictions.csv`, appended row by row; the process may be killed at any time.

    One `write` per row, line end included, so a killed process leaves at most one torn row, at the
    end; `open` drops it.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Set the path; no file is touched yet.

        Args:
            path: The CSV file.
            columns: Its header; the first column is the key.
        """
        self.path = path
        self.columns = tuple(columns)
        self._stream: io.FileIO | None = None

    def open(self, keep: Callable[[Row], bool]) -> None:
        """Rewrite the table with the rows to keep, and prepare it for `append`.

        Args:
            keep: Called with every complete row of an existing table.

        Raises:
            DxsegError: The table has other columns, so it was written by another model.
        """
        with (
            atomic_path(self.path) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
        ):
            stream.write(_line(self.columns))
            if self.path.is_file():
                for row in self._rows():
                    if keep(row):
                        stream.write(_line(row.values()))
        self._stream = io.FileIO(os.open(self.path, os.O_WRONLY | os.O_APPEND), "w")

    def append(self, row: Row) -> None:
        """Add one row; it is with the operating system when this returns.

        Args:
            row: Values for all columns.
        """
        assert self._stream is not None, "open() comes first"
        text = _line([row[column] for column in self.columns])
        # Errors may name files whose names hold bytes that are not text.
        self._stream.write(text.encode("utf-8", errors="backslashreplace"))

    def _rows(self) -> Iterator[Row]:
        with self.path.open("rb") as raw:
            raw.seek(0, os.SEEK_END)
            ends_complete = raw.tell() == 0 or (raw.seek(-1, os.SEEK_END), raw.read(1))[1] == b"\n"
        with self.path.open(encoding="utf-8", errors="backslashreplace", newline="") as stream:
            reader = csv.reader(stream)
            header = self._next(reader)
            if header is not None and tuple(header) != self.columns:
                raise DxsegError(
                    f"{self.path}: its columns are {', '.join(header)}; this model writes "
                    f"{', '.join(self.columns)}. Choose another output folder, or overwrite."
                )
            # One row late: the last one counts only if its line end was written.
            previous = None
            while (values := self._next(reader)) is not None:
                if previous is not None and len(previous) == len(self.columns):
                    yield dict(zip(self.columns, previous, strict=True))
                previous = values
            if previous is not None and ends_complete and len(previous) == len(self.columns):
                yield dict(zip(self.columns, previous, strict=True))

    def _next(self, reader: Iterator[list[str]]) -> list[str] | None:
        try:
            return next(reader, None)
        except csv.Error as error:
            raise DxsegError(
                f"{self.path}: not readable as CSV ({error}). Remove it, or overwrite."
            ) from error

    def close(self) -> None:
        """Close the file; the table may be opened again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> PredictionTable:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()


def _line(values: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()
