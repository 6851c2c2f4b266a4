"""Commands that export models and datasets: `dxseg export ...`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dxseg.commands.options import OutputPath, StrPath
from dxseg.commands.results import HubExport, LabelStudioTasks, OnnxExport
from dxseg.errors import DxsegError, UsageError

if TYPE_CHECKING:
    from dxseg.data.exporters.coco import CocoExport
    from dxseg.data.exporters.nnunet import ExportReport
else:
    CocoExport = ExportReport = Any


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
        int8: Quantize to 8 bits.
        calibration: Dataset whose images calibrate int8; of the run's own dataset, test images are
            left out. May be repeated.
        max_dice_loss: Maximum Dice drop allowed after quantization, 0 to 1.

    Raises:
        UsageError: The file name is wrong, calibration images are missing or not needed, or a
            package is not installed.
        DxsegError: The model cannot be exported, or loses more Dice than allowed.
    """
    from dxseg.export.calibration_data import calibration_cases
    from dxseg.export.quantize import quantize
    from dxseg.inference.load import export_network
    from dxseg.inference.model_folder import find_model_folder, load_model_folder
    from dxseg.inference.onnx_suffix import SUFFIX, is_onnx
    from dxseg.inference.predictor import Predictor
    from dxseg.io.atomic import write_bytes_atomic
    from dxseg.io.progress import console, reporting

    target = Path(output)
    if not is_onnx(target):
        raise UsageError(f"{target}: expected a name that ends in {SUFFIX}")
    if int8 and not calibration:
        raise UsageError("int8 needs images: give --calibration a dataset")
    if calibration and not int8:
        raise UsageError("calibration images are for int8: add --int8, or leave them out")
    if not 0 <= max_dice_loss <= 1:
        raise UsageError(f"max_dice_loss {max_dice_loss}: expected 0 to 1")
    folder = find_model_folder(model)
    network, info = load_model_folder(folder)
    exported, cost = export_network(network, info, folder), None
    if int8:
        cases = calibration_cases(calibration, model)
        with reporting(console, "Quantizing") as progress:
            exported, cost = quantize(
                exported,
                Predictor(network, info),
                cases,
                max_dice_loss=max_dice_loss,
                progress=progress,
            )
    write_bytes_atomic(target, exported.content)
    return OnnxExport(target, len(exported.content), exported.number_format, cost)


def export_coco(source: StrPath, destination: StrPath) -> CocoExport:
    """Write masks as COCO, run lengths in one JSON file: of a dataset, or predicted ones.

    Images whose mask is not known are left out; one without an annotation has no lesion. Sizes and
    masks are of the pictures as viewers show them.

    Args:
        source: Folder of a dataset, or output folder of `dxseg predict`.
        destination: The `.json` file to write; it must not exist.

    Raises:
        DxsegError: The folder is neither, the file exists, or a mask cannot be read.
    """
    from dxseg.data.exporters.coco import dataset_images, write_coco
    from dxseg.data.table.dataset import Dataset
    from dxseg.export.coco_predictions import predicted_images
    from dxseg.inference.files.output_folder import TABLE_FILE
    from dxseg.io.progress import console, reporting

    if (Path(source) / TABLE_FILE).is_file():
        images, classes, unknown = predicted_images(Path(source))
    else:
        dataset = Dataset.load(source)
        images, classes = dataset_images(dataset), dataset.spec.mask_classes
        unknown = len(dataset) - len(images)
    with reporting(console, "Exporting") as progress:
        return write_coco(images, classes, Path(destination), unknown=unknown, progress=progress)


def export_hub(run: StrPath, destination: StrPath) -> HubExport:
    """Write a run's model with a model card, as the Hugging Face Hub expects; uploads nothing.

    Args:
        run: Folder of an evaluated run.
        destination: A new folder, or that of an earlier export.

    Raises:
        UsageError: The extra `hub` is not installed.
        DxsegError: The run is not finished or not evaluated, or the folder has other files.
    """
    from dxseg.export.model_card import CARD_FILE, model_card
    from dxseg.inference.model_folder import (
        INFO_FILE,
        WEIGHTS_FILE,
        load_model_folder,
        read_limited,
    )
    from dxseg.io.atomic import write_bytes_atomic, write_text_atomic

    folder, target = Path(run) / "model", Path(destination)
    names = [CARD_FILE, INFO_FILE, WEIGHTS_FILE]
    if target.exists() and not target.is_dir():
        raise DxsegError(f"{target}: is a file; expected a folder to write the model to")
    found = [path.name for path in target.iterdir()] if target.is_dir() else []
    others = sorted(name for name in found if name not in names and not name.startswith("."))
    if others:
        raise DxsegError(
            f"{target}: holds {others[0]!r}, which is not part of a model; choose a new or empty "
            "folder"
        )
    _, info = load_model_folder(folder)
    card = model_card(Path(run), info)
    public = ("method", "seed", "dataset")
    notes = {name: info.training[name] for name in public if name in info.training}
    public_info = info.model_copy(update={"training": notes})
    weights = folder / WEIGHTS_FILE
    # model.json goes last: without it, the folder is not a model.
    write_text_atomic(target / CARD_FILE, card)
    write_bytes_atomic(target / WEIGHTS_FILE, read_limited(weights, weights.stat().st_size))
    write_text_atomic(target / INFO_FILE, public_info.model_dump_json(indent=2) + "\n")
    return HubExport(target, names, sum((target / name).stat().st_size for name in names))


def export_label_studio(dataset: StrPath, destination: StrPath) -> LabelStudioTasks:
    """Write the cases without a mask as tasks for Label Studio, with the labelling interface.

    Args:
        dataset: Folder with `dataset.yaml` and `cases.csv`.
        destination: A new folder, one that Label Studio serves files from.

    Raises:
        DxsegError: The folder is not empty, every case has its mask, or an image is wrong.
    """
    from urllib.parse import quote

    from dxseg.data.readers.images import read_image
    from dxseg.data.readers.slicing import shown_slice
    from dxseg.data.table.dataset import Dataset
    from dxseg.export.label_studio import LOCAL_FILES, labeling_config
    from dxseg.inference.files.overlay import display_rgb
    from dxseg.inference.files.png import encode_png
    from dxseg.io.atomic import write_bytes_atomic, write_json_atomic, write_text_atomic
    from dxseg.io.progress import console, reporting

    data, target = Dataset.load(dataset), Path(destination)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DxsegError(f"{target}: is not empty; choose a new or empty folder")
    unlabeled = data.cases[~data.has_mask & data.cases["split"].ne("dropped")]
    if unlabeled.empty:
        raise DxsegError(f"{data.root}: every case has a mask, or a label that means none")
    tasks = []
    with reporting(console, "Exporting") as progress:
        for number, row in enumerate(unlabeled.itertuples(), 1):
            # Numbers as names, and 8-bit PNG, which browsers show.
            name = f"images/{number:05}.png"
            pixels = read_image(data.image_path(row))
            shown = display_rgb(shown_slice(pixels, data.spec.slicing))
            write_bytes_atomic(target / name, encode_png(shown))
            task = {"image": LOCAL_FILES + quote(name), "case_id": row.case_id, "label": row.label}
            tasks.append({"data": task})
            progress(number, len(unlabeled))
    write_text_atomic(target / "labeling_config.xml", labeling_config(data.spec.mask_classes))
    write_json_atomic(target / "tasks.json", tasks)
    return LabelStudioTasks(target, len(tasks))


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
    from dxseg.data.exporters.nnunet import RawDataset
    from dxseg.data.splits.split_table import read_splits
    from dxseg.data.table.dataset import Dataset
    from dxseg.io.progress import console, reporting

    data = Dataset.load(dataset)
    raw = RawDataset(data, read_splits(splits, data), Path(destination))
    raw.check(str(splits))
    with reporting(console, "Exporting") as progress:
        raw.write(progress)
    return raw.report()
