"""Predict files into a folder: masks, overlays and a table; resumable, one volume in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path

from dxseg.data.readers.slicing import Slicing
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files.dicom_seg import require_highdicom
from dxseg.inference.files.inputs import find_images
from dxseg.inference.files.job import PredictionJob
from dxseg.inference.files.output_folder import (
    FOLDERS,
    OutputFolder,
    PredictSummary,
    ResumeState,
)
from dxseg.inference.files.table import (
    PredictionTable,
    columns,
    settings_name,
)
from dxseg.inference.files.volumes import (
    Progress,
)
from dxseg.inference.label_prompt import LabelJoin, join_labels
from dxseg.inference.predictor import Predictor


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
    skips inputs with a row that is ok, of the same file, model and label prompt, whose results
    exist and are newer than the file; failed inputs are predicted again.

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
    rule = predictor.info.slicing
    if resample and rule is not None:
        predictor = copy(predictor)  # the caller's keeps the model's rule
        slicing = rule.model_copy(update={"resample": True})
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
        folder,
        named,
        settings_name(predictor),
        joined.by_name,
        overlays,
        slice_overlays,
        dicom_seg,
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
            job = PredictionJob(
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
