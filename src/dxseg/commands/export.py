"""Commands that export models and datasets: `dxseg export ...`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dxseg.commands.options import OutputPath, StrPath

if TYPE_CHECKING:
    from dxseg.data.exporters.nnunet import ExportReport
    from dxseg.export.hub import HubExport
    from dxseg.export.label_studio import LabelStudioTasks
    from dxseg.export.onnx import OnnxExport
else:
    ExportReport = HubExport = LabelStudioTasks = OnnxExport = Any


def export_onnx(
    model: StrPath,
    *,
    output: OutputPath,
    int8: bool = False,
    calibration: Annotated[Sequence[str | Path], Parameter(metavar="PATH")] = (),
    max_dice_loss: float = 0.01,
) -> OnnxExport:
    """Export a model to one ONNX file, for ONNX Runtime, OpenVINO and dxseg itself.

    Args:
        model: Folder of a run or of a model.
        output: The `.onnx` file to write.
        int8: Quantise to 8 bits.
        calibration: Dataset whose images calibrate int8; of the run's own dataset, test images are
            left out. May be repeated.
        max_dice_loss: Maximum Dice drop allowed after quantisation, 0 to 1.

    Raises:
        UsageError: The file name is wrong, calibration images are missing or not needed, or a
            package is not installed.
        DxsegError: The model cannot be exported, or loses more Dice than allowed.
    """
    from dxseg.export.onnx import export_onnx as export
    from dxseg.inference.model_folder import find_model_folder
    from dxseg.io.progress import console, reporting

    with reporting(console, "Quantising") as progress:
        return export(
            find_model_folder(model),
            output,
            int8=int8,
            calibration=calibration,
            max_dice_loss=max_dice_loss,
            run=model,
            progress=progress,
        )


def export_hub(run: StrPath, destination: StrPath) -> HubExport:
    """Write a run's model with a model card, as the Hugging Face Hub expects; uploads nothing.

    Args:
        run: Folder of an evaluated run.
        destination: A new folder, or that of an earlier export.

    Raises:
        UsageError: The extra `hub` is not installed.
        DxsegError: The run is not finished or not evaluated, or the folder has other files.
    """
    from dxseg.export.hub import export_hub as export

    return export(run, destination)


def export_label_studio(dataset: StrPath, destination: StrPath) -> LabelStudioTasks:
    """Write the cases without a mask as tasks for Label Studio, with the labelling interface.

    Args:
        dataset: Folder with `dataset.yaml` and `cases.csv`.
        destination: A new folder, one that Label Studio serves files from.

    Raises:
        DxsegError: The folder is not empty, every case has its mask, or an image is wrong.
    """
    from dxseg.export.label_studio import export_label_studio as export
    from dxseg.io.progress import console, reporting

    with reporting(console, "Exporting") as progress:
        return export(dataset, destination, progress=progress)


def export_nnunet(dataset: StrPath, destination: StrPath, *, splits: StrPath) -> ExportReport:
    """Write a raw dataset of nnU-Net v2 with the same split and the same masks.

    Args:
        dataset: Folder with `dataset.yaml` and `cases.csv`.
        destination: A new folder named as nnU-Net expects, such as `Dataset042_BUSI`.
        splits: The `splits.csv`: the split, and the masks that may be used.

    Raises:
        UsageError: The destination has another kind of name.
        DxsegError: The destination is not empty, no mask may be used, or a file is wrong.
    """
    from dxseg.data.exporters.nnunet import export_nnunet as export
    from dxseg.io.progress import console, reporting

    with reporting(console, "Exporting") as progress:
        return export(dataset, destination, splits=splits, progress=progress)
