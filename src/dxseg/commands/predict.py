"""The command that predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from dxseg.commands.options import (
    Backend,
    Channels,
    LabelTable,
    OutputPath,
    SlidingWindow,
    StrPath,
    StrPaths,
)
from dxseg.errors import UsageError

if TYPE_CHECKING:
    from dxseg.inference.files.output_folder import PredictSummary
else:
    PredictSummary = Any


def predict(
    model: StrPath | Sequence[StrPath],
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
    sliding_window: SlidingWindow = None,
    dicom_seg: bool = False,
    resample: bool = False,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
) -> PredictSummary:
    """Segment images and volumes with a trained model; finished files are skipped.

    An image gives a mask, an overlay and a row of `predictions.csv`; a volume gives one label map.
    With `--engine ray`, worker processes write `results/*.parquet` instead, for large collections
    of images.

    Args:
        model: Folder of a run or of a model, an exported `.onnx` file, or `hf-hub:OWNER/NAME`. Of
            several, one after another, the probabilities are averaged. In Python a list.
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
        sliding_window: Sliding-window inference for images larger than the input size; default: as
            the model records (`data.sliding_window`).
        dicom_seg: Also write DICOM SEG for DICOM inputs (contains patient identity).
        resample: Bring volumes of a tilted gantry, of uneven gaps or of oblique slices onto a
            regular grid along the patient's axes, and masks back; default: as at the import.
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
        "--resample": resample,
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

    models, paths = _split(model, inputs)
    if len(models) > 1 and engine == "ray":
        raise UsageError("several models are not supported with --engine ray; give one")
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
                models[0],
                options,
                paths,
                Path(output),
                workers=workers,
                labels=labels,
                overwrite=overwrite,
                progress=progress,
            )
        return predict_files(
            Predictor.from_folder(models, device, **options),
            paths,
            Path(output),
            labels=labels,
            channels=channels,
            overwrite=overwrite,
            overlays=overlays,
            slice_overlays=slice_overlays,
            dicom_seg=dicom_seg,
            resample=resample,
            progress=progress,
        )


def _split(
    model: str | Path | Sequence[str | Path], inputs: str | Path | Sequence[str | Path]
) -> tuple[list[str | Path], list[str | Path]]:
    """Split paths into models and inputs: models after the first are models of an ensemble.

    Raises:
        UsageError: Models and inputs are swapped; both are paths, so no type checker can tell.
    """
    from dxseg.inference.hub import FILES, PREFIX
    from dxseg.inference.onnx_suffix import is_onnx

    def is_model(given: str | Path) -> bool:
        path = Path(given)
        found = is_onnx(path) or any((path / sub / FILES[0]).is_file() for sub in ("", "model"))
        return found or str(given).startswith(PREFIX)

    models = [model] if isinstance(model, str | Path) else list(model)
    paths = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not models:
        raise UsageError("no model; give a run")
    if is_model(models[0]):
        while paths and is_model(paths[0]):
            models.append(paths.pop(0))
    for path in filter(is_model, paths):
        if not is_model(models[0]):
            raise UsageError(f"{models[0]}: not a model, but {path} is one; give the model first")
        raise UsageError(f"{path}: a model after an input; give all models first")
    if not paths:
        raise UsageError(f"{models[-1]}: a model; give images or volumes to predict after it")
    return models, paths


def _import_ray() -> Callable[..., PredictSummary]:
    try:
        from dxseg.inference.ray.predict import predict_archive
    except ModuleNotFoundError as error:
        raise UsageError(
            f"engine ray needs {error.name}, which is not installed; pip install 'dxseg[ray]'"
        ) from error
    return predict_archive
