"""Predict files into a folder: masks, overlays and a table; resumable, one volume in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files.dicom_seg import require_highdicom
from dxseg.inference.files.inputs import find_images
from dxseg.inference.files.label_table import LabelJoin, known_labels
from dxseg.inference.files.output_folder import FOLDERS, TABLE_FILE, Finished, prepare_output_dir
from dxseg.inference.files.prediction_job import OutputOptions, PredictionJob, Progress
from dxseg.inference.files.summary import PredictSummary
from dxseg.inference.files.table_schema import columns
from dxseg.inference.files.writers import PredictionTable
from dxseg.inference.predictor import Predictor


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
        labels: Labels that are known without looking: a table
        (`dxseg.inference.files.label_table`), or
            by file. An image's is told to the network and followed by rule
            (`dxseg.inference.postprocess`); for a volume's see `predict_volume`.
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
            source and names its patient (`dxseg.inference.files.dicom_seg`).
        progress: Called with the number of images and slices finished or skipped, and of all.

    Raises:
        UsageError: No image was found, two would share a result, the output folder holds results
            of other files, the labels are not of the model or of these files, or SEG is wanted
            where nothing is DICOM or highdicom is absent.
        DxsegError: The bundle is bad, or the output folder cannot be written.
    """
    root = Path(output).resolve()
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    predictor = Predictor.from_folder(
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
    known = LabelJoin() if labels is None else known_labels(labels, items, predictor.info)
    table = PredictionTable(root / TABLE_FILE, columns(predictor.info))
    try:
        prepare_output_dir(root, overwrite)
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
            wanted = OutputOptions(overlays, slice_overlays, dicom_seg)
            job = PredictionJob(predictor, root, table, summary, progress, known.by_name, wanted)
            job.run(items, todo)
    except OSError as error:
        raise DxsegError(
            f"{root}: cannot write there ({error}); make room or choose another folder, then the "
            "same command continues"
        ) from error
    return summary
