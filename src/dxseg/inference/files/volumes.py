"""Predict a volume slice by slice, through the same stream as images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dxseg.data.readers.slicing import SlicedVolume
from dxseg.data.readers.volume import Volume
from dxseg.errors import DxsegError
from dxseg.inference.label_prompt import has_lesion, label_names, label_text
from dxseg.inference.prediction import Prediction
from dxseg.inference.predictor import Predictor, Source
from dxseg.inference.studies import study_probabilities

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class VolumePrediction:
    """What the network says of a volume.

    Attributes:
        mask: (I, J, K) label map on the volume's grid.
        voxel_mm3: Volume of a voxel.
        slice_shape: Number of slices, their height and width.
        label_probabilities: Of the volume, by label name, 0 to 1: those of its slices, pooled (see
            `dxseg.models.mil_pooling`).
        confidence: 0 to 1, as `Prediction.confidence`, over all voxels.
        known: The known label that was used, as `cases.csv` writes it; "" for none.
    """

    mask: NDArray[np.uint8]
    voxel_mm3: float
    slice_shape: tuple[int, int, int]
    label_probabilities: dict[str, float] | None
    confidence: float
    known: str = ""


def predict_volume(
    predictor: Predictor,
    volume: Volume,
    progress: Progress | None = None,
    *,
    known: str = "",
) -> VolumePrediction:
    """Slice a volume as the network's training data were, predict, and stack the masks.

    A known label is of the whole volume. Lesion-free holds for every slice. A lesion is in some
    slice, nobody knows in which: the slices are predicted as if nothing were known, and only if all
    stay empty, the one with the highest probability is predicted once more as known to have it.

    Args:
        predictor: Of a model that was trained on slices.
        volume: Any orientation.
        progress: Called with (done, total) after each slice.
        known: The volume's label where it is known, as `cases.csv` writes it.

    Raises:
        UsageError: The model does not have that label.
        DxsegError: The model knows images only, or a slice cannot be predicted.
    """
    slicing = predictor.info.slicing
    if slicing is None:
        raise DxsegError(
            "the model was trained on images that are no slices of volumes, so it is not known how "
            "to slice this one; train on a dataset of `dxseg import volumes`"
        )
    names = label_names(known, predictor.info)
    lesion = has_lesion(names, predictor.info)
    sliced = SlicedVolume(volume, slicing)
    stack = np.zeros(sliced.shape, np.uint8)
    gathered = _Gathered()
    told = {name: known for name, _ in _slices(sliced)} if lesion is False else None
    results = predictor.stream(_slices(sliced), known=told)
    for index, (_, result) in enumerate(results):
        if isinstance(result, DxsegError):
            raise result
        stack[index] = result.mask
        gathered.add(result)
        if progress is not None:
            progress(index + 1, len(sliced))
    labels = study_probabilities(gathered.labels, predictor.info) if gathered.labels else None
    if lesion and not stack.any():
        likeliest = gathered.likeliest
        [result] = predictor.predict([sliced.image(likeliest)], [known])
        stack[likeliest] = result.mask
        gathered.add(result)
    return VolumePrediction(
        mask=np.ascontiguousarray(sliced.restore(stack)),
        voxel_mm3=float(abs(np.linalg.det(volume.affine[:3, :3]))),
        slice_shape=sliced.shape,
        label_probabilities=labels,
        confidence=gathered.confidence,
        known=label_text(names),
    )


def _slices(sliced: SlicedVolume) -> Iterator[tuple[str, Source]]:
    for index in range(len(sliced)):
        yield f"slice {index}", partial(sliced.image, index)


class _Gathered:
    """Figures of a volume from those of its slices."""

    def __init__(self) -> None:
        self.labels: list[dict[str, float]] = []
        self._pixels, self._sum, self._empty = 0, 0.0, 1.0
        self._peaks: list[float] = []

    def add(self, prediction: Prediction) -> None:
        self._peaks.append(float(prediction.probabilities.max()))
        if prediction.label_probabilities is not None:
            self.labels.append(prediction.label_probabilities)
        pixels = int((prediction.mask > 0).sum())
        if pixels:
            self._pixels += pixels
            self._sum += pixels * prediction.confidence
        else:
            self._empty = min(self._empty, prediction.confidence)

    @property
    def likeliest(self) -> int:
        """The slice with the highest probability, counted as they were added."""
        return int(np.argmax(self._peaks))

    @property
    def confidence(self) -> float:
        return self._sum / self._pixels if self._pixels else self._empty
