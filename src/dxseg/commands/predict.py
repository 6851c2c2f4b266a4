"""The command that predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from dxseg.commands.options import Backend, Channels, LabelTable, OutputPath, StrPath, StrPaths
from dxseg.errors import UsageError

if TYPE_CHECKING:
    from dxseg.inference.files.output_folder import PredictSummary
else:
    PredictSummary = Any


def predict(
    model: StrPath,
    inputs: StrPaths,
    *,
    output: OutputPath,
    labels: LabelTable | None = None,
    channels: Channels | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    batch_size: int = 8,
    overlays: Annotated[bool, Parameter(negative="--no-overlays")] = True,
    slice_overlays: bool = False,
    backend: Backend | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    flip: bool = False,
    sliding_window: bool = False,
    dicom_seg: bool = False,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
) -> PredictSummary:
    """Segment images and volumes with a trained model; finished files are skipped.

    An image gives a mask, an overlay and a row of `predictions.csv`; a volume gives one label map.
    With `--engine ray`, worker processes write `results/*.parquet` instead, for large collections
    of images.

    Args:
        model: Folder of a run or of a model, an exported `.onnx` file, or `hf-hub:OWNER/NAME`.
        inputs: One or more images, volumes (NIfTI, NRRD, MHA), folders, or quoted patterns such as
            `"images/*.png"`; with `--engine ray` also a table of paths, `.csv` or `.parquet`, with
            the column `image`.
        output: Folder for masks, overlays and `predictions.csv`.
        labels: CSV with columns `file,label`: image-level labels to use as prompts. In Python also
            a mapping of file to label.
        channels: Name of one of the model's sequences and the end of the name of its file, such as
            `flair=_flair`; default: as at the import. May be repeated. In Python a mapping.
        overwrite: Recompute existing predictions.
        device: Torch device: `cpu`, `cuda`, `cuda:1`, ...
        batch_size: Batch size.
        overlays: Draw the outlines over the images.
        slice_overlays: Draw overlays of the slices of volumes that have a lesion.
        backend: Inference backend; default: `torch` for a folder, `onnxruntime` for `.onnx`.
        precision: Number format of the network; `bfloat16` for `torch` and `openvino` only.
        flip: Test-time augmentation: average with the horizontal flip (2x slower).
        sliding_window: Sliding-window inference for images larger than the input size.
        dicom_seg: Also write DICOM SEG for DICOM inputs (contains patient identity).
        engine: `ray` uses worker processes and writes Parquet; images only.
        workers: Ray workers (`--engine ray` only); default: cores / 2.

    Returns:
        Counts of predicted, skipped and failed files.

    Raises:
        UsageError: Options exclude each other, no image is found, the labels fit neither model nor
            files, or a package is not installed.
        DxsegError: The model cannot be read, or the folder cannot be written.
    """
    local = {
        "--channel": channels is not None,
        "--slice-overlays": slice_overlays,
        "--dicom-seg": dicom_seg,
        "--device": device != "cpu",
        "--no-overlays": not overlays,
    }
    for option in (name for name, given in local.items() if given and engine == "ray"):
        raise UsageError(f"{option} is not supported with --engine ray")
    if workers is not None and engine != "ray":
        raise UsageError("--workers requires --engine ray")
    from dxseg.inference.files.predict import predict_files
    from dxseg.inference.predictor import Predictor
    from dxseg.io.progress import console, reporting

    paths = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    _check_order(model, paths)
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "backend": backend,
        "precision": precision,
        "flip": flip,
        "sliding_window": sliding_window,
    }
    with reporting(console, "Predicting") as progress:
        if engine == "ray":
            return _import_ray()(
                model,
                options,
                paths,
                Path(output),
                workers=workers,
                labels=labels,
                overwrite=overwrite,
                progress=progress,
            )
        return predict_files(
            Predictor.from_folder(model, device, **options),
            paths,
            Path(output),
            labels=labels,
            channels=channels,
            overwrite=overwrite,
            overlays=overlays,
            slice_overlays=slice_overlays,
            dicom_seg=dicom_seg,
            progress=progress,
        )


def _check_order(model: str | Path, paths: Sequence[str | Path]) -> None:
    """Name the mistake if model and inputs are swapped: both are paths, so no type checker can."""
    from dxseg.inference.hub import FILES, PREFIX
    from dxseg.inference.onnx_file import is_onnx

    def is_model(path: Path) -> bool:
        return is_onnx(path) or any((path / inner / FILES[0]).is_file() for inner in ("", "model"))

    if str(model).startswith(PREFIX) or is_model(Path(model)):
        return
    for path in filter(is_model, map(Path, paths)):
        raise UsageError(f"{model}: not a model, but {path} is one; give the model first")


def _import_ray() -> Callable[..., PredictSummary]:
    try:
        from dxseg.inference.ray.predict import predict_archive
    except ModuleNotFoundError as error:
        raise UsageError(
            f"engine ray needs {error.name}, which is not installed; pip install 'dxseg[ray]'"
        ) from error
    return predict_archive
