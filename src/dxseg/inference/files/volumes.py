"""Predict a volume slice by slice, through the same stream as images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dxseg.data.geometry import Spacing, voxel_volume
from dxseg.data.readers.dicom.series import Stack, read_stack, series_in
from dxseg.data.readers.sliced_volume import SlicedVolume, slice_grid
from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume import Volume
from dxseg.data.readers.volume_files import read_sequences, volume_grid
from dxseg.data.table.volumes import SlicePosition
from dxseg.errors import DxsegError
from dxseg.inference.along_axis import smoothing_reach
from dxseg.inference.files.inputs import PredictionInput
from dxseg.inference.files.overlay import write_overlay_png
from dxseg.inference.label_prompt import (
    format_label_prompt,
    labels_imply_lesion,
    parse_label_prompt,
)
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.pipeline import Pixels, Prediction
from dxseg.inference.predictor import Predictor
from dxseg.inference.sources import SpacedImage
from dxseg.models.mil_pooling import study_probabilities

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class VolumePrediction:
    """The prediction for a volume.

    Attributes:
        mask: (I, J, K) label map on the volume's grid.
        slices: (slice, height, width) label map of the slices; of a regular grid where the volume
            is resampled.
        voxel_mm3: Volume of a voxel of the slices.
        label_probabilities: Of the volume, by label name, 0 to 1: those of its slices, pooled (see
            `dxseg.models.mil_pooling`).
        confidence: 0 to 1, as `Prediction.confidence`, over all voxels.
        label_prompt: The label prompt that was used, in the notation of `cases.csv`; "" for none.
        reduced: As `Prediction.reduced`.
    """

    mask: NDArray[np.uint8]
    slices: NDArray[np.uint8]
    voxel_mm3: float
    label_probabilities: dict[str, float] | None
    confidence: float
    label_prompt: str = ""
    reduced: bool = False


def predict_volume(
    predictor: Predictor,
    volume: Volume,
    progress: Progress | None = None,
    *,
    label: str = "",
) -> VolumePrediction:
    """Slice a volume as the network's training data were, predict, and stack the masks.

    A label prompt is of the whole volume. A lesion-free one applies to every slice. A lesion is in
    some slice, unknown which: the slices are predicted without a label prompt, and only if no mask
    shows one, the slice with the highest probability of one is predicted again with it.

    Args:
        predictor: Of a model that was trained on slices.
        volume: Any orientation.
        progress: Called with (done, total) after each slice.
        label: The volume's label prompt, in the notation of `cases.csv`.

    Raises:
        UsageError: The model does not have that label.
        DxsegError: The model was trained on images only, or a slice cannot be predicted.
    """
    info = predictor.info
    if info.slicing is None:
        raise DxsegError(
            "the model was trained on images, not on slices of volumes, so it cannot predict "
            "volumes; train on a dataset of `dxseg import volumes`"
        )
    names = parse_label_prompt(label, info)
    lesion = labels_imply_lesion(names, info)
    sliced = SlicedVolume(volume, info.slicing)
    masks = np.zeros(sliced.shape, np.uint8)
    accumulator = _VolumeAccumulator(info.lesion_values)

    every = range(len(sliced))
    prompts = dict.fromkeys(every, label) if lesion is False else {}
    distance, spacing = sliced.spacing[0], (sliced.spacing[1], sliced.spacing[2])
    for index, result in predict_slices(
        predictor,
        sliced.image,
        every,
        len(sliced),
        spacing=spacing,
        distance=distance,
        labels=prompts,
    ):
        masks[index] = result.mask
        accumulator.add(result)
        if progress is not None:
            progress(index + 1, len(sliced))
    # Of all slices as the network sees them, before one is predicted again.
    pooled = None
    if accumulator.labels:
        pooled = study_probabilities(
            accumulator.labels,
            info.labels,
            lesion_free=info.lesion_free,
            multi_label=info.multi_label,
        )
    if lesion and not accumulator.shows_lesion:
        likeliest = accumulator.likeliest
        [result] = predictor.predict([sliced.image(likeliest)], [label], [spacing])
        masks[likeliest] = result.mask
        accumulator.add(result)
    return VolumePrediction(
        mask=np.ascontiguousarray(sliced.restore(masks)),
        slices=masks,
        voxel_mm3=sliced.voxel_mm3,
        label_probabilities=pooled,
        confidence=accumulator.confidence,
        label_prompt=format_label_prompt(names),
        reduced=accumulator.reduced,
    )


def predict_slices(
    predictor: Predictor,
    image: Callable[[int], Pixels],
    wanted: range,
    count: int,
    *,
    spacing: Spacing | None,
    distance: float | None,
    labels: Mapping[int, str] | None = None,
    keep_images: bool = False,
) -> Iterator[tuple[int, Prediction]]:
    """Predict slices of a volume, of their neighbors as many as the model needs for these.

    Components of the volume are removed only if all of its slices are wanted.

    Args:
        predictor: Of a model that was trained on slices.
        image: Makes the network's input of a slice.
        wanted: Numbers of the slices, from 0.
        count: Of all slices.
        spacing: Height and width of a pixel, mm; None where unknown.
        distance: Millimeters between slices; None where the images are no volume.
        labels: Label prompts by slice.
        keep_images: Whether predictions carry the decoded pixels.

    Yields:
        Number and prediction of each wanted slice.

    Raises:
        DxsegError: A slice cannot be predicted.
    """
    reach = smoothing_reach(predictor.info.smoothing_mm, distance)
    read = range(max(wanted.start - reach, 0), min(wanted.stop + reach, count))
    names = {f"slice {index}": index for index in read}
    voxel = voxel_volume(spacing, distance)
    positions = {name: SlicePosition("", index, distance, voxel) for name, index in names.items()}
    items = ((name, SpacedImage(partial(image, i), spacing)) for name, i in names.items())
    stream = predictor.stream(
        items,
        keep_images=keep_images,
        labels={f"slice {index}": label for index, label in (labels or {}).items()},
        positions=None if distance is None else positions,
        whole_volumes=len(wanted) == count,
    )
    for name, result in stream:
        if names[name] not in wanted:
            continue
        if isinstance(result, DxsegError):
            raise result
        yield names[name], result


def read_volume(item: PredictionInput, slicing: Slicing | None) -> tuple[Volume, Stack | None]:
    """Read a volume, and of a DICOM series its slices.

    Args:
        item: The volume.
        slicing: Of the model; None for a model of images.

    Raises:
        DxsegError: It cannot be read, or lacks a sequence.
    """
    if item.is_series:
        stack = series_in(item.source, resample=bool(slicing and slicing.resample))
        return read_stack(stack), stack
    files = [path for path in item.sequences if path is not None] or [item.source]
    if len(files) < len(item.sequences):
        assert slicing is not None, "without a rule there are no sequences"
        names = zip(slicing.sequences or (), item.sequences, strict=True)
        absent = [one.name for one, path in names if path is None]
        raise DxsegError(
            f"{item.source}: no file of sequence {', '.join(absent)} for it; the model needs all "
            "sequences it was trained on; give the folder that has them, or with --channel how "
            "they are named"
        )
    return read_sequences(files, len(slicing.windows) if slicing else 1), None


def slices_to_predict(item: PredictionInput, slicing: Slicing | None) -> int:
    """Count the slices of a volume without reading its pixels.

    Args:
        item: The volume.
        slicing: Of the model; None for a model of images.

    Returns:
        The count; 1 where it cannot be known, which is reported when the volume is predicted.
    """
    if slicing is None:
        return 1
    try:
        if item.is_series:
            stack = series_in(item.source, resample=bool(slicing.resample))
            return len(slice_grid(stack.affine, stack.shape, slicing, stack.positions))
        in_file = 1 if item.sequences else len(slicing.windows)
        return len(slice_grid(*volume_grid(item.source, in_file), slicing))
    except Exception:  # noqa: BLE001 - one input never ends the others
        return 1


def write_slice_overlays(
    folder: Path, volume: Volume, prediction: VolumePrediction, info: ModelInfo
) -> None:
    """Write overlays of the slices with a lesion, in place of those of an earlier call.

    Args:
        folder: Gets 0007.png, ...
        volume: As it was predicted.
        prediction: For the volume.
        info: Of the model.
    """
    assert info.slicing is not None, "predict_volume has refused a model of images"
    # Of the slice itself, whatever neighbors and sequences are channels of the network's input.
    sliced = SlicedVolume(volume, info.slicing.model_copy(update={"neighbours": 0}))
    if folder.is_dir():
        shutil.rmtree(folder)
    for index, mask in enumerate(prediction.slices):
        if mask.any():
            write_overlay_png(folder / f"{index:04d}.png", sliced.image(index)[:, :, :1], mask)


class _VolumeAccumulator:
    """Figures of a volume from those of its slices."""

    def __init__(self, lesion_values: Sequence[int]) -> None:
        self.labels: list[dict[str, float]] = []
        self.reduced = self.shows_lesion = False
        self._values = np.array(lesion_values)
        self._pixels, self._sum, self._empty = 0, 0.0, 1.0
        self._peaks: list[float] = []

    def add(self, prediction: Prediction) -> None:
        self.reduced |= prediction.reduced
        self.shows_lesion |= bool(np.isin(prediction.mask, self._values).any())
        self._peaks.append(float(prediction.probabilities[self._values - 1].max()))
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
        """Index of the slice with the highest probability of a lesion, in the order of adding."""
        return int(np.argmax(self._peaks))

    @property
    def confidence(self) -> float:
        return self._sum / self._pixels if self._pixels else self._empty
