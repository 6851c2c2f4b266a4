"""The verbs below `dxseg export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dxseg.commands.terminal import err, out, value_table

exporter = typer.Typer(
    no_args_is_help=True, help="Write a model or a dataset as other tools read it."
)


@exporter.command("onnx")
def export_onnx_command(
    model: Annotated[Path, typer.Argument(help="Folder of a run, or of a model.")],
    output: Annotated[Path, typer.Option("--out", help="The .onnx file to write.")],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise to 8 bits.")] = False,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="Dataset whose images int8 is calibrated on. May be repeated."),
    ] = None,
    max_dice_loss: Annotated[
        float, typer.Option(help="The most Dice that int8 may lose on them, 0 to 1.")
    ] = 0.01,
) -> None:
    """One file that ONNX Runtime, OpenVINO and dxseg itself can predict with."""
    from dxseg import api

    done = api.export_onnx(
        model,
        output,
        int8=int8,
        calibration=calibration or [],
        max_dice_loss=max_dice_loss,
        console=err,
    )
    if done.quantization is not None:
        out.print(value_table(done.quantization.model_dump(), "int8 against float32"))
    out.print(
        f"Written: {done.destination}, {done.number_format}, {done.size / 1e6:.1f} MB",
        soft_wrap=True,
    )


@exporter.command("hub")
def export_hub_command(
    run: Annotated[Path, typer.Argument(help="Folder of a run that is evaluated.")],
    destination: Annotated[Path, typer.Argument(help="A new folder.")],
) -> None:
    """A model folder with a model card, as the Hugging Face Hub lays it out; uploads nothing."""
    from dxseg import api

    done = api.export_hub(run, destination)
    out.print(
        f"Written: {done.destination}: {', '.join(done.files)}, {done.size / 1e6:.1f} MB\n"
        "Read the card, README.md, before you pass it on: it repeats your names of dataset and "
        "labels, and says nothing of where the images come from.",
        soft_wrap=True,
    )


@exporter.command("label-studio")
def export_label_studio_command(
    dataset: Annotated[Path, typer.Argument(help="Folder with dataset.yaml and cases.csv.")],
    destination: Annotated[Path, typer.Argument(help="A new folder that Label Studio can read.")],
) -> None:
    """The cases without a mask, as tasks for Label Studio, and the interface to draw them."""
    from dxseg import api

    done = api.export_label_studio(dataset, destination, console=err)
    out.print(f"Written: {done.destination}: {done.tasks} tasks", soft_wrap=True)


@exporter.command("nnunet")
def export_nnunet_command(
    dataset: Annotated[Path, typer.Argument(help="Folder with dataset.yaml and cases.csv.")],
    destination: Annotated[Path, typer.Argument(help="A new folder, such as Dataset042_BUSI.")],
    splits: Annotated[Path, typer.Option(help="The splits.csv: who trains, whose mask is used.")],
) -> None:
    """A raw dataset of nnU-Net v2 with the same split and the same masks."""
    from dxseg import api

    done = api.export_nnunet(dataset, destination, splits=splits, console=err)
    out.print(
        f"- {done.training} training and {done.validation} validation images in imagesTr\n"
        f"- {done.test} test images in imagesTs, {done.test_masks} masks in labelsTs\n"
        f"- {done.without_mask} images left out: no mask that may be used\n"
        f"Written: {done.destination}",
        soft_wrap=True,
    )
