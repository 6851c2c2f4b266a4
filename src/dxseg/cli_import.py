"""The verbs below `dxseg import`; those that make slices of volumes are in `cli_import_volumes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dxseg.cli_import_options import (
    LesionClass,
    LesionFree,
    Overwrite,
    VolumeAxis,
    VolumeWindow,
    chosen_slicing,
    column_pairs,
    print_import,
)
from dxseg.commands.terminal import err

importer = typer.Typer(no_args_is_help=True, help="Make a dataset of images in another layout.")


@importer.command("busi")
def import_busi_command(
    source: Annotated[Path, typer.Argument(help="Folder with benign/, malignant/, normal/.")],
    destination: Annotated[Path, typer.Argument(help="Folder of the new dataset.")],
    overwrite: Overwrite = False,
) -> None:
    """BUSI breast ultrasound, as published; several masks of an image are united."""
    from dxseg.data.importers.busi import import_busi
    from dxseg.io.progress import reporting

    with reporting(err, "Importing") as progress:
        done = import_busi(source, destination, overwrite=overwrite, progress=progress)
    print_import(done)


@importer.command("folder")
def import_folder_command(
    source: Annotated[Path, typer.Argument(help="Folder with one sub-folder a label.")],
    destination: Annotated[Path, typer.Argument(help="Folder of the new dataset.")],
    lesion_free: LesionFree = None,
    masks_root: Annotated[
        Path | None, typer.Option(help="Masks in a parallel tree; beside the images if absent.")
    ] = None,
    mask_suffix: Annotated[str, typer.Option(help="NAME_mask.png belongs to NAME.png.")] = "_mask",
    name: Annotated[str | None, typer.Option(help="Of the dataset.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """One folder a label, masks beside the images or in a parallel tree."""
    from dxseg.data.importers.folder import import_folder
    from dxseg.io.progress import reporting

    with reporting(err, "Importing") as progress:
        done = import_folder(
            source,
            destination,
            name=name,
            lesion_free=lesion_free or (),
            masks_root=masks_root,
            mask_suffix=mask_suffix,
            overwrite=overwrite,
            progress=progress,
        )
    print_import(done)


@importer.command("csv")
def import_csv_command(
    table: Annotated[Path, typer.Argument(help="The CSV file.")],
    destination: Annotated[Path, typer.Argument(help="Folder of the new dataset.")],
    column: Annotated[
        list[str],
        typer.Option(help="FIELD=COLUMN, e.g. label=diagnosis; image=... is needed. Repeat it."),
    ],
    lesion_free: LesionFree = None,
    images_root: Annotated[
        Path | None, typer.Option(help="Folder the paths are relative to; the CSV's if absent.")
    ] = None,
    multi_label: Annotated[bool, typer.Option(help="Labels are written 'a;b'.")] = False,
    name: Annotated[str | None, typer.Option(help="Of the dataset.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Any CSV that names images, with its columns mapped to dxseg's."""
    from dxseg.data.importers.csv import import_csv
    from dxseg.io.progress import reporting

    with reporting(err, "Importing") as progress:
        done = import_csv(
            table,
            destination,
            columns=column_pairs(column),
            images_root=images_root,
            name=name,
            lesion_free=lesion_free or (),
            multi_label=multi_label,
            overwrite=overwrite,
            progress=progress,
        )
    print_import(done)


@importer.command("label-studio")
def import_label_studio_command(
    export: Annotated[Path, typer.Argument(help="The JSON that Label Studio exported.")],
    dataset: Annotated[Path, typer.Argument(help="The dataset that gets the masks.")],
    role: Annotated[
        str,
        typer.Option(
            help="Who drew them: radiologist, clinician, radiographer, researcher, trainee, other."
        ),
    ],
) -> None:
    """Masks drawn or corrected in Label Studio, into the dataset whose cases they are of."""
    from dxseg.data.importers.label_studio import import_label_studio
    from dxseg.io.progress import reporting

    with reporting(err, "Importing") as progress:
        done = import_label_studio(export, dataset, role=role, progress=progress)
    print_import(done)


@importer.command("nnunet")
def import_nnunet_command(
    source: Annotated[Path, typer.Argument(help="Folder DatasetXXX_Name with dataset.json.")],
    destination: Annotated[Path, typer.Argument(help="Folder of the new dataset.")],
    labels: Annotated[
        Path | None, typer.Option(help="Table with the columns case_id and label.")
    ] = None,
    lesion_free: LesionFree = None,
    axis: VolumeAxis = None,
    window: VolumeWindow = None,
    lesion_class: LesionClass = None,
    name: Annotated[str | None, typer.Option(help="Of the dataset.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """A raw dataset of nnU-Net v2, images or NIfTI volumes, with a table of labels."""
    from dxseg.data.importers.nnunet import import_nnunet
    from dxseg.io.progress import reporting

    with reporting(err, "Importing") as progress:
        done = import_nnunet(
            source,
            destination,
            labels=labels,
            lesion_free=lesion_free or (),
            slicing=chosen_slicing(axis, window) if axis or window else None,
            lesion_classes=lesion_class or (),
            name=name,
            overwrite=overwrite,
            progress=progress,
        )
    print_import(done)
