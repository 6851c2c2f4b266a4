"""The verbs that export, as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dxseg.data.exporters.nnunet import ExportReport
from dxseg.data.exporters.nnunet import export_nnunet as write_nnunet
from dxseg.export.hub import HubExport
from dxseg.export.hub import export_hub as write_hub
from dxseg.export.label_studio import LabelStudioTasks
from dxseg.export.label_studio import export_label_studio as write_label_studio
from dxseg.export.onnx import OnnxExport
from dxseg.export.onnx import export_onnx as write_onnx
from dxseg.inference.model_folder import find_model_folder
from dxseg.io.progress import reporting

PathLike = str | Path


def export_hub(run: PathLike, destination: PathLike) -> HubExport:
    """Write a run's model with a model card, as the Hugging Face Hub lays it out; uploads nothing.

    Args:
        run: folder of a run that is evaluated.
        destination: a new folder, or that of an earlier export.

    Raises:
        DxsegError: see :func:`dxseg.export.hub.export_hub`.
    """
    return write_hub(run, destination)


def export_label_studio(
    dataset: PathLike, destination: PathLike, *, console: Console | None = None
) -> LabelStudioTasks:
    """Write the cases without a mask as tasks for Label Studio.

    Args:
        dataset: folder of the dataset.
        destination: a new folder, the one that Label Studio serves files from.
        console: where progress is drawn.

    Raises:
        DxsegError: see :func:`dxseg.export.label_studio.export_label_studio`.
    """
    with reporting(console or Console(stderr=True), "Exporting") as progress:
        return write_label_studio(dataset, destination, progress=progress)


def export_nnunet(
    dataset: PathLike,
    destination: PathLike,
    *,
    splits: PathLike,
    console: Console | None = None,
) -> ExportReport:
    """Write a raw dataset of nnU-Net v2 with the same split and the same masks.

    Args:
        dataset: folder of the dataset.
        destination: a new folder named as nnU-Net wants it, such as Dataset042_BUSI.
        splits: the splits.csv.
        console: where progress is drawn.

    Raises:
        DxsegError: see :func:`dxseg.data.exporters.nnunet.export_nnunet`.
    """
    with reporting(console or Console(stderr=True), "Exporting") as progress:
        return write_nnunet(dataset, destination, splits=splits, progress=progress)


def export_onnx(
    model: PathLike,
    output: PathLike,
    *,
    int8: bool = False,
    calibration: Sequence[PathLike] = (),
    max_dice_loss: float = 0.01,
    console: Console | None = None,
) -> OnnxExport:
    """Write a run's model as one ONNX file, all of model.json in its metadata.

    Args:
        model: folder of a run, or of a model.
        output: the file, ending in .onnx.
        int8: whether to quantise to 8 bits.
        calibration: folders of datasets to quantise with; of the run's own dataset its test images
            are left out.
        max_dice_loss: the most Dice that int8 may lose on them.
        console: where progress is drawn.

    Raises:
        DxsegError: see :func:`dxseg.export.onnx.export_onnx`.
    """
    with reporting(console or Console(stderr=True), "Quantising") as progress:
        return write_onnx(
            find_model_folder(model),
            output,
            int8=int8,
            calibration=calibration,
            max_dice_loss=max_dice_loss,
            run=model,
            progress=progress,
        )
