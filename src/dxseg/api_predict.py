"""The verbs that predict, as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from dxseg.errors import UsageError
from dxseg.inference.files.predict import PredictSummary, predict_files
from dxseg.io.progress import reporting

PathLike = str | Path


def predict(
    inputs: PathLike | Sequence[PathLike],
    model: PathLike,
    output: PathLike,
    *,
    labels: PathLike | Mapping[str, str] | None = None,
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
    console: Console | None = None,
) -> PredictSummary:
    """Segment images and volumes with a run or its model; what is done is skipped.

    Args:
        inputs: files, folders or patterns; a NIfTI volume gives one label map.
        model: folder of a run, or of a model, or an exported .onnx file.
        output: folder for masks, overlays and predictions.csv.
        labels: diagnoses that are known already: a table with the columns file and label, or by
            file; see :func:`dxseg.inference.label_prompt.join_labels`.
        overwrite: whether what is done is predicted again.
        device: as torch names it.
        batch_size: images through the network at once.
        overlays: whether images get overlays.
        slice_overlays: whether volumes get overlays of the slices with a lesion.
        backend: ``torch``, ``onnxruntime`` or ``openvino``; what suits the model if absent.
        precision: ``float32``, or ``bfloat16`` for torch and openvino.
        flip: whether each image is also predicted mirrored, and the mean taken.
        windows: whether images larger than the network's input are cut into windows.
        dicom_seg: whether DICOM images and series get a DICOM SEG too, which names their patient.
        console: where progress is drawn.

    Raises:
        DxsegError: see :func:`dxseg.inference.files.predict.predict_files`.
    """
    with reporting(console or Console(stderr=True), "Predicting") as progress:
        return predict_files(
            model,
            inputs,
            output,
            labels=labels,
            overwrite=overwrite,
            device=device,
            batch_size=batch_size,
            overlays=overlays,
            slice_overlays=slice_overlays,
            backend=backend,
            precision=precision,
            flip=flip,
            sliding_window=windows,
            dicom_seg=dicom_seg,
            progress=progress,
        )


def predict_archive(
    inputs: PathLike | Sequence[PathLike],
    model: PathLike,
    output: PathLike,
    *,
    workers: int | None = None,
    labels: PathLike | Mapping[str, str] | None = None,
    overwrite: bool = False,
    batch_size: int = 8,
    backend: str | None = None,
    precision: str = "float32",
    flip: bool = False,
    windows: bool = False,
    console: Console | None = None,
) -> PredictSummary:
    """Segment many images with Ray Data into results/*.parquet; what is done is skipped.

    Args:
        inputs: files, folders or patterns of images; or a table of paths, .csv or .parquet, with
            the column image and perhaps case_id.
        model: folder of a run, or of a model, or an exported .onnx file.
        output: folder for the results.
        workers: processes that hold the model; one for two cores if absent.
        labels: diagnoses that are known already; as of :func:`dxseg.predict`.
        overwrite: whether what is done is predicted again.
        batch_size: images through the network at once.
        backend: ``torch``, ``onnxruntime`` or ``openvino``; what suits the model if absent.
        precision: ``float32``, or ``bfloat16`` for torch and openvino.
        flip: whether each image is also predicted mirrored, and the mean taken.
        windows: whether images larger than the network's input are cut into windows.
        console: where progress is drawn.

    Raises:
        UsageError: the extra ``ray`` is not installed.
        DxsegError: see :func:`dxseg.inference.ray.predict.predict_archive`.
    """
    try:
        from dxseg.inference.ray.predict import predict_archive as predict_by_workers
    except ModuleNotFoundError as error:
        raise UsageError(
            f"engine ray needs {error.name}, which is not installed; pip install 'dxseg[ray]'"
        ) from error
    with reporting(console or Console(stderr=True), "Predicting") as progress:
        return predict_by_workers(
            model,
            inputs,
            output,
            workers=workers,
            labels=labels,
            overwrite=overwrite,
            batch_size=batch_size,
            backend=backend,
            precision=precision,
            flip=flip,
            sliding_window=windows,
            progress=progress,
        )
