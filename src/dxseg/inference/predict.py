"""Predict files into a folder: masks, overlays and a table; resumable, one volume in memory."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dxseg.data.dicom.series import Stack, read_stack, series_in
from dxseg.data.nifti import nifti_grid, read_nifti, write_label_map, write_label_map_at
from dxseg.data.slicing import SlicedVolume, count_slices
from dxseg.data.volume import Volume
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.bundle import BundleInfo
from dxseg.inference.dicom_seg import (
    image_segmentation,
    require_highdicom,
    series_segmentation,
    write_segmentation,
)
from dxseg.inference.inputs import Item, find_images
from dxseg.inference.label_table import KnownLabels, known_labels
from dxseg.inference.prediction import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.inference.results import (
    FOLDERS,
    OVERLAYS,
    TABLE_FILE,
    Finished,
    checked_path,
    claim_folder,
    remove_results,
    result_files,
    seg_file,
)
from dxseg.inference.rows import columns, image_values, model_name, volume_values
from dxseg.inference.volumes import VolumePrediction, predict_volume
from dxseg.inference.writers import PredictionTable, Row, write_mask_png, write_overlay_png

_WRITERS = 2
_WRITES_AHEAD = 16

Progress = Callable[[int, int], None]


@dataclass
class PredictSummary:
    """What a call of `predict_files` did.

    Attributes:
        done: Images and volumes predicted.
        skipped: Those that the table already held.
        failed: Name and reason of each one without a result.
        known: How many of all have a known label.
        unmatched_labels: Places in the table of labels that speak of none of them.
    """

    done: int = 0
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    known: int = 0
    unmatched_labels: list[str] = field(default_factory=list)


def predict_files(
    inputs: str | Path | Sequence[str | Path],
    bundle: str | Path,
    output: str | Path,
    *,
    labels: str | Path | Mapping[str, str] | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    batch_size: int = 8,
    overlays: bool = True,
    slice_overlays: bool = False,
    backend: str | None = None,
    precision: str = "float32",
    flip: bool = False,
    windows: bool = False,
    dicom_seg: bool = False,
    progress: Progress | None = None,
) -> PredictSummary:
    """Predict images and volumes into masks, overlays and a table.

    An image `sub/a.jpg` gives `masks/sub/a.png` and `overlays/sub/a.png`. A volume `sub/v.nii.gz`
    is sliced as the model's training data were and gives one label map, `masks/sub/v.nii.gz`, that
    lies exactly as the volume does. For a model of slices, a folder `sub/series` of DICOM slices is
    a volume too: its label map is `masks/sub/series.nii.gz`.

    `predictions.csv` gets a row for each: name, height, width (pixels), status (ok or failed),
    known_label (that was used), p_LABEL for each label (0..1), lesion_area_px (pixels; and one
    column a class where there are several), confidence (0..1, see `Prediction.confidence`), error,
    source (the file) and model (the first digits of the weights' SHA-256). A model of slices adds
    slices and lesion_volume_mm3, which volumes fill in place of the area; see `VolumePrediction`
    for the rest. Called again, what has a row that is ok, of the same file, model and known label,
    and whose files exist is skipped; what failed is tried again.

    Args:
        inputs: Files, folders (searched through all levels) or patterns; names in the output are
            relative to the folder they share.
        bundle: The model folder, or an exported .onnx file.
        output: The folder to write to, made if absent; nothing is written outside it.
        labels: Labels that are known without looking: a table (`dxseg.inference.label_table`), or
            by file. An image's is told to the network and followed by rule
            (`dxseg.inference.decision`); for a volume's see `predict_volume`.
        overwrite: Predict everything anew and start the table anew.
        device: As torch names it.
        batch_size: Images through the network at once.
        overlays: Whether images get overlays.
        slice_overlays: Whether volumes that are predicted now get `overlays/NAME/0007.png`, ... of
            the slices with a lesion.
        backend: torch, onnxruntime or openvino; what suits the model if absent.
        precision: float32, or bfloat16 for torch and openvino.
        flip: Whether each image is also predicted mirrored, and the mean taken.
        windows: Whether images larger than the network's input are cut into windows.
        dicom_seg: Whether what is DICOM gets `segmentations/NAME.dcm` too, a SEG that refers to its
            source and names its patient (`dxseg.inference.dicom_seg`).
        progress: Called with the number of images and slices finished or skipped, and of all.

    Raises:
        UsageError: No image was found, two would share a result, the output folder holds results
            of other files, the labels are not of the model or of these files, or SEG is wanted
            where nothing is DICOM or highdicom is absent.
        DxsegError: The bundle is bad, or the output folder cannot be written.
    """
    root = Path(output).resolve()
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    predictor = Predictor.from_bundle(
        bundle,
        device,
        batch_size,
        backend=backend,
        precision=precision,
        flip=flip,
        windows=windows,
    )
    series = predictor.info.slicing is not None
    items = find_images(given, skip=[root / kind for kind in FOLDERS], series=series)
    if dicom_seg:
        require_highdicom()
        if not any(item.is_dicom for item in items):
            raise UsageError(f"{given[0]}: no DICOM there, which DICOM SEG refers to; leave it out")
    known = KnownLabels() if labels is None else known_labels(labels, items, predictor.info)
    table = PredictionTable(root / TABLE_FILE, columns(predictor.info))
    try:
        claim_folder(root, overwrite)
        finished = Finished(
            root,
            items,
            predictor.info,
            known.by_name,
            overlays=overlays,
            dicom_seg=dicom_seg,
        )
        table.open(finished.keep)
        todo = [item for item in items if item.name not in finished.names]
        summary = PredictSummary(
            skipped=len(items) - len(todo),
            known=len(known.by_name),
            unmatched_labels=known.unmatched,
        )
        with table:
            job = _Job(predictor, root, table, summary, progress, known.by_name)
            job.overlays, job.slice_overlays, job.dicom_seg = overlays, slice_overlays, dicom_seg
            job.run(items, todo)
    except OSError as error:
        raise DxsegError(
            f"{root}: cannot write there ({error}); make room or choose another folder, then the "
            "same command continues"
        ) from error
    return summary


class _Job:
    """Predicts, writes and reports one thing after the other."""

    def __init__(
        self,
        predictor: Predictor,
        root: Path,
        table: PredictionTable,
        summary: PredictSummary,
        progress: Progress | None,
        known: Mapping[str, str],
    ) -> None:
        self.overlays, self.slice_overlays, self.dicom_seg = True, False, False
        self.known = known
        self.predictor, self.root, self.table, self.summary = predictor, root, table, summary
        self.info = predictor.info
        self.progress = progress or (lambda _done, _all: None)
        self.steps, self.total = 0, 0

    def run(self, items: list[Item], todo: list[Item]) -> None:
        """Predict the images, then the volumes one by one."""
        weights = {item.name: _weight(item, self.info) for item in items}
        self.total = sum(weights.values())
        self.steps = self.total - sum(weights[item.name] for item in todo)
        self.progress(self.steps, self.total)
        self._images([item for item in todo if not item.is_volume])
        for item in todo:
            if item.is_volume:
                self._note(item, weights[item.name], partial(self._volume, item))

    def _images(self, images: list[Item]) -> None:
        """Write results in threads while the network works; rows keep the order of the images."""
        results = self.predictor.stream(
            ((item.name, item.source) for item in images),
            keep_images=self.overlays,
            known=self.known,
        )
        writing: deque[tuple[Item, Future[Row]]] = deque()
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

    def _note_written(self, item: Item, writing: Future[Row]) -> None:
        self._note(item, 1, writing.result)

    def _note(self, item: Item, weight: int, work: Callable[[], Row]) -> None:
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

    def _image(self, item: Item, result: Prediction | DxsegError) -> Row:
        if isinstance(result, DxsegError):
            raise result
        mask_path, *overlay = (
            checked_path(self.root, path) for path in result_files(self.root, item, self.overlays)
        )
        for path in overlay:
            assert result.image is not None, "the stream keeps images"
            caption = _caption(result, self.info)
            write_overlay_png(path, result.image, result.mask, caption=caption)
        write_mask_png(mask_path, result.mask, len(self.info.mask_classes))
        if self.dicom_seg and item.is_dicom:
            self._write_seg(item, image_segmentation(item.source, result.mask, self.info))
        return image_values(result, self.info)

    def _volume(self, item: Item) -> Row:
        [path] = result_files(self.root, item)
        checked_path(self.root, path)
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
        if self.slice_overlays:
            self._write_overlays(item, volume, result)
        if stack is None:
            write_label_map(path, result.mask, item.source)
        else:
            write_label_map_at(path, result.mask, volume.affine)
            if self.dicom_seg:
                self._write_seg(item, series_segmentation(stack, result.mask, self.info))
        return volume_values(result, self.info)

    def _write_seg(self, item: Item, content: bytes) -> None:
        write_segmentation(checked_path(self.root, seg_file(self.root, item)), content)

    def _write_overlays(self, item: Item, volume: Volume, result: VolumePrediction) -> None:
        assert self.info.slicing is not None, "predict_volume has refused a model of images"
        # Of the slice itself, whatever neighbours the network sees.
        sliced = SlicedVolume(volume, self.info.slicing.model_copy(update={"neighbours": 0}))
        # No other input can have a file in it: where a file lies, there is no folder. Beside the
        # slices of a series, though, images may lie.
        name = f"{item.name}.nii.gz" if item.is_series else item.name
        folder = checked_path(self.root, self.root / OVERLAYS / name / "slices").parent
        if folder.is_dir():
            shutil.rmtree(folder)
        for index, mask in enumerate(sliced.turn(result.mask)):
            if mask.any():
                write_overlay_png(folder / f"{index:04d}.png", sliced.image(index), mask)


def _weight(item: Item, info: BundleInfo) -> int:
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


def _caption(prediction: Prediction, info: BundleInfo) -> str:
    probabilities = prediction.label_probabilities or {}
    ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
    shown = [pair for pair in ranked if pair[1] >= 0.5] if info.multi_label else ranked[:1]
    if prediction.known:
        return f"known: {prediction.known}"
    return ", ".join(f"{label} {value:.2f}" for label, value in shown)
