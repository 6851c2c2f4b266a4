"""Predict, write and count one input after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from dxseg.data.readers.images import image_orientation, image_spacing
from dxseg.data.readers.nifti_writer import write_label_map_at
from dxseg.data.readers.orientation import UPRIGHT
from dxseg.data.readers.slicing import shown_slice
from dxseg.data.readers.volume_files import volume_format
from dxseg.errors import DxsegError, unexpected_error
from dxseg.inference.files.dicom_seg import (
    image_segmentation,
    series_segmentation,
)
from dxseg.inference.files.inputs import PredictionInput
from dxseg.inference.files.output_folder import (
    MASKS,
    OVERLAYS,
    SEGMENTATIONS,
    OutputFolder,
    PredictSummary,
)
from dxseg.inference.files.overlay import caption_of, write_overlay_png
from dxseg.inference.files.png import write_mask_png
from dxseg.inference.files.table import (
    PredictionTable,
    Row,
    image_values,
    settings_name,
    volume_values,
)
from dxseg.inference.files.volumes import (
    Progress,
    predict_volume,
    read_volume,
    slices_to_predict,
    write_slice_overlays,
)
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.io.atomic import write_bytes_atomic

_WRITERS, _WRITES_AHEAD = 2, 16


@dataclass
class PredictionJob:
    """Predicts, writes and counts one input after the other."""

    predictor: Predictor
    folder: OutputFolder
    table: PredictionTable
    summary: PredictSummary
    labels: Mapping[str, str]
    progress: Progress
    overlays: bool
    slice_overlays: bool
    dicom_seg: bool
    steps: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        self.info = self.predictor.info
        self.model = settings_name(self.predictor)

    def run(self, items: Sequence[PredictionInput], done: set[str]) -> None:
        """Predict the images that are not done, then the volumes one by one."""
        slicing = self.info.slicing
        weights = {i.name: slices_to_predict(i, slicing) if i.is_volume else 1 for i in items}
        todo = [item for item in items if item.name not in done]
        self.total = sum(weights.values())
        self.steps = self.total - sum(weights[item.name] for item in todo)
        self.progress(self.steps, self.total)
        self._predict_images([item for item in todo if not item.is_volume])
        for item in todo:
            if item.is_volume:
                self._record(item, weights[item.name], partial(self._predict_volume, item))

    def _predict_images(self, images: list[PredictionInput]) -> None:
        """Write results in threads while the network runs; rows keep the order of the images."""
        sources = ((item.name, item.source) for item in images)
        results = self.predictor.stream(sources, keep_images=self.overlays, labels=self.labels)
        writing: deque[tuple[PredictionInput, Future[Row]]] = deque()

        def record_next() -> None:
            item, future = writing.popleft()
            self._record(item, 1, future.result)

        with ThreadPoolExecutor(_WRITERS, thread_name_prefix="dxseg-write") as pool:
            try:
                for item, (_, result) in zip(images, results, strict=True):
                    writing.append((item, pool.submit(self._write_image, item, result)))
                    if len(writing) > _WRITES_AHEAD:
                        record_next()
                while writing:
                    record_next()
            finally:
                results.close()
                pool.shutdown(cancel_futures=True)

    def _write_image(self, item: PredictionInput, result: Prediction | DxsegError) -> Row:
        """Write the files of an image; the mask last, then a SEG."""
        if isinstance(result, DxsegError):
            raise result
        mask_path = self.folder.path(MASKS, item)
        if self.overlays:
            assert result.image is not None, "the stream keeps images"
            path, caption = (
                self.folder.path(OVERLAYS, item),
                caption_of(result, self.info),
            )
            shown = shown_slice(result.image, self.info.slicing)
            write_overlay_png(path, shown, result.mask, caption=caption)
        write_mask_png(mask_path, result.mask, len(self.info.mask_classes))
        row = image_values(result, self.info)
        if self.dicom_seg and item.is_dicom:
            make = partial(image_segmentation, item.source, result.mask, self.info)
            row["error"] = self._write_segmentation(item, make)
        return row

    def _predict_volume(self, item: PredictionInput) -> Row:
        path = self.folder.path(MASKS, item)
        begun = self.steps
        try:
            volume, stack = read_volume(item, self.info.slicing)
            result = predict_volume(
                self.predictor,
                volume,
                lambda done, _: self.progress(begun + done, self.total),
                label=self.labels.get(item.name, ""),
            )
        except DxsegError as error:
            if str(item.source) in str(error):
                raise
            raise DxsegError(f"{item.source}: {error}") from error
        if self.slice_overlays:
            write_slice_overlays(self.folder.slice_folder(item), volume, result, self.info)
        if stack is None:
            volume_format(item.source).write_labels(path, result.mask, item.source)
        else:
            write_label_map_at(path, result.mask, volume.affine)
        row = volume_values(result, self.info)
        if self.dicom_seg and stack is not None:
            make = partial(series_segmentation, stack, result.mask, self.info)
            row["error"] = self._write_segmentation(item, make)
        return row

    def _write_segmentation(self, item: PredictionInput, make: Callable[[], bytes]) -> str:
        """Write a DICOM SEG; return why there is none: the mask stays all the same."""
        path = self.folder.path(SEGMENTATIONS, item)
        try:
            write_bytes_atomic(path, make())
        except DxsegError as error:
            path.unlink(missing_ok=True)
            return f"the mask is written, but no DICOM SEG: {error}"
        return ""

    def _record(self, item: PredictionInput, weight: int, work: Callable[[], Row]) -> None:
        """Append the row of an input once `work` has written its files, and count it."""
        row = dict.fromkeys(self.table.columns, "")
        row |= {
            "name": item.name,
            "source": item.shown_source,
            "model": self.model,
        }
        try:
            values = work()
            turned = not item.is_volume and image_orientation(item.source) != UPRIGHT
            unspaced = not item.is_volume and self._lacks_spacing(item)
            row |= {"status": "ok", **values}
        except Exception as error:  # noqa: BLE001 - one input never ends the others
            known = isinstance(error, (DxsegError, OSError))
            reason = str(error if known else unexpected_error(item.source, error))
            self.folder.remove(item)
            row |= {"status": "failed", "error": reason}
        row["error"] = " ".join(row["error"].split())
        if row["error"]:
            self.summary.failed.append((item.name, row["error"]))
        else:
            self.summary.done += 1
            self.summary.turned += turned
            if unspaced:
                self.summary.of_unknown_spacing.append(item.name)
        # Last: a row promises that its files exist.
        self.table.append(row)
        self.steps += weight
        self.progress(self.steps, self.total)

    def _lacks_spacing(self, item: PredictionInput) -> bool:
        """Whether an image has no spacing although the network was trained at one."""
        return bool(self.info.preprocessing.spacing) and image_spacing(item.source) is None
