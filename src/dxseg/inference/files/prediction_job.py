"""Images and volumes through a predictor into the files of an output folder."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dxseg.data.readers.dicom.series import Stack, read_stack, series_in
from dxseg.data.readers.nifti import nifti_grid, read_nifti
from dxseg.data.readers.nifti_writer import write_label_map, write_label_map_at
from dxseg.data.readers.slicing import SlicedVolume, count_slices
from dxseg.data.readers.volume import Volume
from dxseg.errors import DxsegError
from dxseg.inference.files.dicom_seg import (
    image_segmentation,
    series_segmentation,
    write_segmentation,
)
from dxseg.inference.files.inputs import PredictionInput
from dxseg.inference.files.output_folder import (
    OVERLAYS,
    ensure_inside,
    remove_results,
    result_files,
    seg_file,
)
from dxseg.inference.files.summary import PredictSummary
from dxseg.inference.files.table_schema import image_values, model_name, volume_values
from dxseg.inference.files.volumes import VolumePrediction, predict_volume
from dxseg.inference.files.writers import PredictionTable, Row, write_mask_png, write_overlay_png
from dxseg.inference.model_folder import ModelInfo
from dxseg.inference.prediction import Prediction
from dxseg.inference.predictor import Predictor

_WRITERS = 2
_WRITES_AHEAD = 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class OutputOptions:
    """What is written beside masks and the table.

    Attributes:
        overlays: Overlays of images.
        slice_overlays: Overlays of a volume's slices with a lesion.
        dicom_seg: A DICOM SEG for what is DICOM.
    """

    overlays: bool = True
    slice_overlays: bool = False
    dicom_seg: bool = False


class PredictionJob:
    """Predicts, writes and reports one thing after the other."""

    def __init__(
        self,
        predictor: Predictor,
        root: Path,
        table: PredictionTable,
        summary: PredictSummary,
        progress: Progress | None,
        known: Mapping[str, str],
        wanted: OutputOptions,
    ) -> None:
        """Prepare; nothing is read or written yet.

        Args:
            predictor: The model.
            root: The output folder, resolved.
            table: Open for appending.
            summary: Counts what is done, and what failed.
            progress: Called with the number of images and slices finished, and of all.
            known: By name, labels that are known without looking.
            wanted: What is written beside masks and the table.
        """
        self.known, self.wanted = known, wanted
        self.predictor, self.root, self.table, self.summary = predictor, root, table, summary
        self.info = predictor.info
        self.progress = progress or (lambda _done, _all: None)
        self.steps, self.total = 0, 0

    def run(self, items: list[PredictionInput], todo: list[PredictionInput]) -> None:
        """Predict the images, then the volumes one by one.

        Args:
            items: All inputs, of which progress counts.
            todo: Those of them that have no result yet.
        """
        weights = {item.name: _weight(item, self.info) for item in items}
        self.total = sum(weights.values())
        self.steps = self.total - sum(weights[item.name] for item in todo)
        self.progress(self.steps, self.total)
        self._images([item for item in todo if not item.is_volume])
        for item in todo:
            if item.is_volume:
                self._note(item, weights[item.name], partial(self._volume, item))

    def _images(self, images: list[PredictionInput]) -> None:
        """Write results in threads while the network works; rows keep the order of the images."""
        results = self.predictor.stream(
            ((item.name, item.source) for item in images),
            keep_images=self.wanted.overlays,
            known=self.known,
        )
        writing: deque[tuple[PredictionInput, Future[Row]]] = deque()
        with ThreadPoolExecutor(_WRITERS, thread_name_prefix="dxseg-write") as pool:
            try:
                for item, (_, result) in zip(images, results, strict=True):
                    writing.append((item, pool.submit(self._image, item, result)))
                    if len(writing) > _WRITES_AHEAD:
                        self._note_written(*writing.popleft())
                while writing:
                    self._note_written(*writing.popleft())
            finally:
                results.close()
                pool.shutdown(cancel_futures=True)

    def _note_written(self, item: PredictionInput, writing: Future[Row]) -> None:
        self._note(item, 1, writing.result)

    def _note(self, item: PredictionInput, weight: int, work: Callable[[], Row]) -> None:
        row = dict.fromkeys(self.table.columns, "")
        row |= {"name": item.name, "source": str(item.source), "model": model_name(self.info)}
        try:
            row |= {"status": "ok", **work()}
            self.summary.done += 1
        except (DxsegError, OSError) as error:
            reason = " ".join(str(error).split())
            remove_results(self.root, item)
            row |= {"status": "failed", "error": reason}
            self.summary.failed.append((item.name, reason))
        # Last: a row promises that its files are there.
        self.table.append(row)
        self.steps += weight
        self.progress(self.steps, self.total)

    def _image(self, item: PredictionInput, result: Prediction | DxsegError) -> Row:
        if isinstance(result, DxsegError):
            raise result
        mask_path, *overlay = (
            ensure_inside(self.root, path)
            for path in result_files(self.root, item, self.wanted.overlays)
        )
        for path in overlay:
            assert result.image is not None, "the stream keeps images"
            caption = _caption(result, self.info)
            write_overlay_png(path, result.image, result.mask, caption=caption)
        write_mask_png(mask_path, result.mask, len(self.info.mask_classes))
        if self.wanted.dicom_seg and item.is_dicom:
            self._write_seg(item, image_segmentation(item.source, result.mask, self.info))
        return image_values(result, self.info)

    def _volume(self, item: PredictionInput) -> Row:
        [path] = result_files(self.root, item)
        ensure_inside(self.root, path)
        begun = self.steps
        stack: Stack | None = None
        try:
            stack = series_in(item.source) if item.is_series else None
            volume = read_nifti(item.source) if stack is None else read_stack(stack)
            result = predict_volume(
                self.predictor,
                volume,
                lambda done, _: self.progress(begun + done, self.total),
                known=self.known.get(item.name, ""),
            )
        except DxsegError as error:
            if str(item.source) in str(error):
                raise
            raise DxsegError(f"{item.source}: {error}") from error
        if self.wanted.slice_overlays:
            self._write_overlays(item, volume, result)
        if stack is None:
            write_label_map(path, result.mask, item.source)
        else:
            write_label_map_at(path, result.mask, volume.affine)
            if self.wanted.dicom_seg:
                self._write_seg(item, series_segmentation(stack, result.mask, self.info))
        return volume_values(result, self.info)

    def _write_seg(self, item: PredictionInput, content: bytes) -> None:
        write_segmentation(ensure_inside(self.root, seg_file(self.root, item)), content)

    def _write_overlays(
        self, item: PredictionInput, volume: Volume, result: VolumePrediction
    ) -> None:
        assert self.info.slicing is not None, "predict_volume has refused a model of images"
        # Of the slice itself, whatever neighbours the network sees.
        sliced = SlicedVolume(volume, self.info.slicing.model_copy(update={"neighbours": 0}))
        # No other input can have a file in it: where a file lies, there is no folder. Beside the
        # slices of a series, though, images may lie.
        name = f"{item.name}.nii.gz" if item.is_series else item.name
        folder = ensure_inside(self.root, self.root / OVERLAYS / name / "slices").parent
        if folder.is_dir():
            shutil.rmtree(folder)
        for index, mask in enumerate(sliced.turn(result.mask)):
            if mask.any():
                write_overlay_png(folder / f"{index:04d}.png", sliced.image(index), mask)


def _weight(item: PredictionInput, info: ModelInfo) -> int:
    """How many images go through the network."""
    if not item.is_volume or info.slicing is None:
        return 1
    try:
        if item.is_series:
            stack = series_in(item.source)
            return count_slices(stack.affine, stack.shape, info.slicing)
        return count_slices(*nifti_grid(item.source), info.slicing)
    except DxsegError:
        # Told when its turn comes.
        return 1


def _caption(prediction: Prediction, info: ModelInfo) -> str:
    probabilities = prediction.label_probabilities or {}
    ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
    shown = [pair for pair in ranked if pair[1] >= 0.5] if info.multi_label else ranked[:1]
    if prediction.known:
        return f"known: {prediction.known}"
    return ", ".join(f"{label} {value:.2f}" for label, value in shown)
