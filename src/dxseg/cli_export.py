"""The verbs below `dxseg export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dxseg.terminal import err, out

exporter = typer.Typer(no_args_is_help=True, help="Write a dataset in the layout of another tool.")


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
