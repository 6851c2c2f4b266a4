"""Predict files into a folder: masks, overlays and a table; resumable, one volume in memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dxseg.data.dicom.objects import is_dicom
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
from dxseg.inference.predictor import Prediction, Predictor
from dxseg.inference.rows import columns, image_values, model_name, volume_values
from dxseg.inference.volumes import VolumePrediction, predict_volume
from dxseg.inference.writers import PredictionTable, Row, write_mask_png, write_overlay_png

TABLE_FILE = "predictions.csv"
MASKS, OVERLAYS, SEGMENTATIONS = "masks", "overlays", "segmentations"

Progress = Callable[[int, int], None]


@dataclass
class PredictSummary:
    """What a call of `predict_files` did.

    Attributes:
        done: Images and volumes predicted.
        skipped: Those that the table already held.
        failed: Name and reason of each one without a result.
    """

    done: int = 0
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def predict_files(
    inputs: str | Path | Sequence[str | Path],
    bundle: str | Path,
    output: str | Path,
    *,
    overwrite: bool = False,
    device: str = "cpu",
    batch_size: int = 8,
    slice_overlays: bool = False,
    dicom_seg: bool = False,
    progress: Progress | None = None,
) -> PredictSummary:
    """Predict images and volumes into masks, overlays and a table.

    An image `sub/a.jpg` gives `masks/sub/a.png` and `overlays/sub/a.png`. A volume `sub/v.nii.gz`
    is sliced as the model's training data were and gives one label map, `masks/sub/v.nii.gz`, that
    lies exactly as the volume does. For a model of slices, a folder `sub/series` of DICOM slices is
    a volume too: its label map is `masks/sub/series.nii.gz`.

    `predictions.csv` gets a row for each: name, height, width (pixels), status (ok or failed),
    p_LABEL for each label (0..1), lesion_area_px (pixels; and one column a class where there are
    several), confidence (0..1, see `Prediction.confidence`), error, source (the file) and model
    (the first digits of the weights' SHA-256). A model of slices adds slices and lesion_volume_mm3,
    which volumes fill in place of the area; see `VolumePrediction` for the rest. Called again, what
    has a row that is ok, of the same file and model, and whose files exist is skipped; what failed
    is tried again.

    Args:
        inputs: Files, folders (searched through all levels) or patterns; names in the output are
            relative to the folder they share.
        bundle: The model folder.
        output: The folder to write to, made if absent; nothing is written outside it.
        overwrite: Predict everything anew and start the table anew.
        device: As torch names it.
        batch_size: Images through the network at once.
        slice_overlays: Whether volumes that are predicted now get `overlays/NAME/0007.png`, ... of
            the slices with a lesion.
        dicom_seg: Whether what is DICOM gets `segmentations/NAME.dcm` too, a SEG that refers to its
            source and names its patient (`dxseg.inference.dicom_seg`).
        progress: Called with the number of images and slices finished or skipped, and of all.

    Raises:
        UsageError: No image was found, two would share a result, the output folder holds results
            of other files, or SEG is wanted where nothing is DICOM or highdicom is absent.
        DxsegError: The bundle is bad, or the output folder cannot be written.
    """
    root = Path(output).resolve()
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    predictor = Predictor.from_bundle(bundle, device, batch_size)
    series = predictor.info.slicing is not None
    results = [root / kind for kind in (MASKS, OVERLAYS, SEGMENTATIONS)]
    items = find_images(given, skip=results, series=series)
    if dicom_seg:
        require_highdicom()
        if not any(map(_is_dicom, items)):
            raise UsageError(f"{given[0]}: no DICOM there, which DICOM SEG refers to; leave it out")
    table = PredictionTable(root / TABLE_FILE, columns(predictor.info))
    try:
        _claim(root, overwrite)
        finished = _Finished(root, items, predictor.info, dicom_seg)
        table.open(finished.keep)
        todo = [item for item in items if item.name not in finished.names]
        summary = PredictSummary(skipped=len(items) - len(todo))
        with table:
            job = _Job(predictor, root, table, summary, progress, slice_overlays, dicom_seg)
            job.run(items, todo)
    except OSError as error:
        raise DxsegError(f"{root}: cannot write there ({error})") from error
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
        slice_overlays: bool,
        dicom_seg: bool,
    ) -> None:
        self.slice_overlays, self.dicom_seg = slice_overlays, dicom_seg
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
        images = [item for item in todo if not item.is_volume]
        sources = ((item.name, item.source) for item in images)
        results = self.predictor.stream(sources, keep_images=True)
        for item, (_, result) in zip(images, results, strict=True):
            self._note(item, 1, partial(self._image, item, result))
        for item in todo:
            if item.is_volume:
                self._note(item, weights[item.name], partial(self._volume, item))

    def _note(self, item: Item, weight: int, work: Callable[[], Row]) -> None:
        row = dict.fromkeys(self.table.columns, "")
        row |= {"name": item.name, "source": str(item.source), "model": model_name(self.info)}
        try:
            row |= {"status": "ok", **work()}
            self.summary.done += 1
        except (DxsegError, OSError) as error:
            reason = " ".join(str(error).split())
            _remove(self.root, item)
            row |= {"status": "failed", "error": reason}
            self.summary.failed.append((item.name, reason))
        # Last: a row promises that its files are there.
        self.table.append(row)
        self.steps += weight
        self.progress(self.steps, self.total)

    def _image(self, item: Item, result: Prediction | DxsegError) -> Row:
        if isinstance(result, DxsegError):
            raise result
        mask_path, overlay_path = (_checked(self.root, path) for path in _files(self.root, item))
        assert result.image is not None, "the stream keeps images"
        caption = _caption(result, self.info)
        write_overlay_png(overlay_path, result.image, result.mask, caption=caption)
        write_mask_png(mask_path, result.mask, len(self.info.mask_classes))
        if self.dicom_seg and _is_dicom(item):
            self._write_seg(item, image_segmentation(item.source, result.mask, self.info))
        return image_values(result, self.info)

    def _volume(self, item: Item) -> Row:
        [path] = _files(self.root, item)
        _checked(self.root, path)
        begun = self.steps
        stack: Stack | None = None
        try:
            stack = series_in(item.source) if item.is_series else None
            volume = read_nifti(item.source) if stack is None else read_stack(stack)
            result = predict_volume(
                self.predictor,
                volume,
                lambda done, _: self.progress(begun + done, self.total),
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
        write_segmentation(_checked(self.root, _seg_file(self.root, item)), content)

    def _write_overlays(self, item: Item, volume: Volume, result: VolumePrediction) -> None:
        assert self.info.slicing is not None, "predict_volume has refused a model of images"
        # Of the slice itself, whatever neighbours the network sees.
        sliced = SlicedVolume(volume, self.info.slicing.model_copy(update={"neighbours": 0}))
        # No other input can have a file in it: where a file lies, there is no folder. Beside the
        # slices of a series, though, images may lie.
        name = f"{item.name}.nii.gz" if item.is_series else item.name
        folder = _checked(self.root, self.root / OVERLAYS / name / "slices").parent
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


def _is_dicom(item: Item) -> bool:
    return item.is_series or is_dicom(item.source)


def _caption(prediction: Prediction, info: BundleInfo) -> str:
    probabilities = prediction.label_probabilities or {}
    ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
    shown = [pair for pair in ranked if pair[1] >= 0.5] if info.multi_label else ranked[:1]
    return ", ".join(f"{label} {value:.2f}" for label, value in shown)


def _files(root: Path, item: Item) -> list[Path]:
    """What a result consists of, the mask first."""
    if item.is_volume:
        return [root / MASKS / f"{item.stem}.nii.gz"]
    return [root / kind / f"{item.stem}.png" for kind in (MASKS, OVERLAYS)]


def _seg_file(root: Path, item: Item) -> Path:
    return root / SEGMENTATIONS / f"{item.stem}.dcm"


def _checked(root: Path, path: Path) -> Path:
    # A link that lies in the output folder must not lead the writing elsewhere.
    if not path.parent.resolve().is_relative_to(root):
        raise DxsegError(f"{path.parent}: a link leads outside {root}; remove it")
    return path


def _remove(root: Path, item: Item) -> None:
    """Leave no result of an earlier call beside a row that says failed."""
    for path in (*_files(root, item), _seg_file(root, item)):
        if path.parent.resolve().is_relative_to(root) and path.is_file():
            path.unlink()


def _claim(root: Path, overwrite: bool) -> None:
    root.mkdir(parents=True, exist_ok=True)
    table = root / TABLE_FILE
    if overwrite:
        table.unlink(missing_ok=True)
        return
    strangers = [kind for kind in (MASKS, OVERLAYS, SEGMENTATIONS) if (root / kind).exists()]
    if strangers and not table.exists():
        raise UsageError(
            f"{root}: has {' and '.join(strangers)} but no {TABLE_FILE}, so they are not of "
            "`dxseg predict`; choose another output folder, or overwrite"
        )


def _written(path: Path) -> bool:
    """Whether a file is there; a power cut may have left an empty one."""
    return path.is_file() and path.stat().st_size > 0


class _Finished:
    """Decides which rows of an earlier call still hold."""

    def __init__(self, root: Path, items: list[Item], info: BundleInfo, dicom_seg: bool) -> None:
        self.names: set[str] = set()
        self._dicom_seg = dicom_seg
        self._root, self._model = root, model_name(info)
        self._items = {item.name: item for item in items}

    def keep(self, row: Row) -> bool:
        """Keep rows of other images and rows that still hold; drop what is predicted anew."""
        item = self._items.get(row["name"])
        if item is None:
            return True
        if row["status"] != "ok" or item.name in self.names:
            return False
        if row["source"] != str(item.source):
            raise UsageError(
                f"{self._root}: holds results of {row['source']} under the name {item.name}, "
                f"which is now {item.source}; choose another output folder, or overwrite"
            )
        files = _files(self._root, item)
        if self._dicom_seg and _is_dicom(item):
            files.append(_seg_file(self._root, item))
        if row["model"] != self._model or not all(
            _written(_checked(self._root, path)) for path in files
        ):
            return False
        self.names.add(item.name)
        return True
