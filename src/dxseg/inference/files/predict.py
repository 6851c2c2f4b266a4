"""Predict files into a folder: masks, overlays and a table; resumable, one volume in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dxseg.data.readers.images import image_orientation, image_spacing
from dxseg.data.readers.nifti_writer import write_label_map_at
from dxseg.data.readers.orientation import UPRIGHT
from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume_files import volume_format
from dxseg.errors import DxsegError, UsageError, unexpected_error
from dxseg.inference.files.dicom_seg import (
    image_segmentation,
    require_highdicom,
    series_segmentation,
)
from dxseg.inference.files.inputs import PredictionInput, find_images
from dxseg.inference.files.output_folder import (
    FOLDERS,
    MASKS,
    OVERLAYS,
    SEGMENTATIONS,
    OutputFolder,
    PredictSummary,
    ResumeState,
)
from dxseg.inference.files.overlay import caption_of, write_overlay_png
from dxseg.inference.files.png import write_mask_png
from dxseg.inference.files.table import (
    PredictionTable,
    Row,
    columns,
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
from dxseg.inference.label_prompt import LabelJoin, join_labels
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.io.atomic import write_bytes_atomic

_WRITERS, _WRITES_AHEAD = 2, 16


def _no_progress(_done: int, _all: int) -> None:
    pass


def predict_files(
    predictor: Predictor,
    inputs: Sequence[str | Path],
    output: Path,
    *,
    labels: str | Path | Mapping[str, str] | None = None,
    channels: Mapping[str, str] | None = None,
    overwrite: bool = False,
    overlays: bool = True,
    slice_overlays: bool = False,
    dicom_seg: bool = False,
    resample: bool = False,
    progress: Progress = _no_progress,
) -> PredictSummary:
    """Predict images and volumes into masks, overlays and a table.

    An image `sub/a.jpg` gives `masks/sub/a.png` and `overlays/sub/a.png`. A volume `sub/v.nii.gz`
    is sliced as the model's training data were and gives one label map, `masks/sub/v.nii.gz`, with
    the geometry of the volume. For a model of slices, a folder `sub/series` of DICOM slices is a
    volume too: its label map is `masks/sub/series.nii.gz`.

    `predictions.csv` has one row per input; `docs/evaluation.md` lists its columns. A later call
    skips inputs with a row that is ok, of the same file, model and label prompt, whose files exist;
    failed inputs are predicted again.

    Args:
        predictor: The model.
        inputs: Files, folders (searched through all levels) or patterns; names in the output are
            relative to the folder they share.
        output: The folder to write to, created if needed; nothing is written outside it.
        labels: Label prompts; see `dxseg.inference.label_prompt.join_labels`. That of an image is
            an input of the network and followed by rule (`dxseg.inference.postprocess`); for
            volumes see `predict_volume`.
        channels: End of the name of the file of each of the model's sequences, where it is not as
            in training. A volume `sub/v_flair.nii.gz`, `sub/v_post.nii.gz` has the name `sub/v`.
        overwrite: Recompute existing predictions.
        overlays: Write overlays of images.
        slice_overlays: Write `overlays/NAME/0007.png`, ... for a volume's slices with a lesion.
        dicom_seg: Write `segmentations/NAME.dcm` for DICOM inputs, a SEG that contains the
            patient's identity (`dxseg.inference.files.dicom_seg`).
        resample: Resample volumes that are no regular grid, whatever the model's rule is.
        progress: Called with the number of images and slices finished or skipped, and of all.

    Raises:
        UsageError: No image was found, two would share a result, the output folder holds results
            of other files, the labels do not match, or SEG is wanted without DICOM or highdicom.
        DxsegError: The output folder cannot be written.
    """
    folder = OutputFolder(output)
    if resample and predictor.info.slicing is not None:
        slicing = predictor.info.slicing.model_copy(update={"resample": True})
        predictor.info = predictor.info.model_copy(update={"slicing": slicing})
    info = predictor.info
    results = [folder.root / kind for kind in FOLDERS]
    passed_over: list[Path] = []
    of_no_sequence: list[Path] = []
    items = find_images(
        inputs,
        skip=results,
        series=info.slicing is not None,
        suffixes=_suffixes(info.slicing, channels),
        passed_over=passed_over,
        of_no_sequence=of_no_sequence,
    )
    if dicom_seg:
        require_highdicom()
        if not any(item.is_dicom for item in items):
            raise UsageError(f"{inputs[0]}: no DICOM there, which DICOM SEG needs; leave it out")
    joined = LabelJoin() if labels is None else join_labels(labels, items, info)
    table = PredictionTable(folder.table, columns(info))
    named = {item.name: item for item in items}
    resume = ResumeState(
        folder, named, settings_name(predictor), joined.by_name, overlays, dicom_seg
    )
    try:
        folder.prepare(overwrite)
        table.open(resume.is_still_valid)
        summary = PredictSummary(
            skipped=len(resume.done),
            label_prompts=len(joined.by_name),
            unmatched_labels=joined.unmatched,
            table=folder.table,
            of_no_sequence=[path.name for path in of_no_sequence],
        )
        summary.pass_over([path for path in passed_over if folder.root not in path.parents])
        with table:
            job = _Job(
                predictor,
                folder,
                table,
                summary,
                joined.by_name,
                progress,
                overlays=overlays,
                slice_overlays=slice_overlays,
                dicom_seg=dicom_seg,
            )
            job.run(items, resume.done)
    except OSError as error:
        raise DxsegError(
            f"{folder.root}: cannot write there ({error}); make room or choose another folder, "
            "then the same command continues"
        ) from error
    return summary


def _suffixes(
    slicing: Slicing | None, channels: Mapping[str, str] | None
) -> Mapping[str, str] | None:
    if channels is not None:
        return (slicing or Slicing()).other_suffixes(channels)
    return None if slicing is None else slicing.suffixes


@dataclass
class _Job:
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
            write_overlay_png(path, result.image, result.mask, caption=caption)
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
            "model": settings_name(self.predictor),
        }
        try:
            row |= {"status": "ok", **work()}
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
            if not item.is_volume:
                self.summary.turned += image_orientation(item.source) != UPRIGHT
                if self.info.preprocessing.spacing and image_spacing(item.source) is None:
                    self.summary.of_unknown_spacing.append(item.name)
        # Last: a row promises that its files exist.
        self.table.append(row)
        self.steps += weight
        self.progress(self.steps, self.total)
