"""The verbs below `dxseg import` that make slices of volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dxseg.cli_import import importer
from dxseg.cli_import_options import (
    Axis,
    Bits,
    LesionClass,
    LesionFree,
    LesionLabel,
    Neighbours,
    Overwrite,
    VolumeAxis,
    VolumeWindow,
    Window,
    chosen_slicing,
    column_pairs,
    mask_values,
    pair,
    print_import,
)
from dxseg.commands.terminal import err


@importer.command("volumes")
def import_volumes_command(
    source: Annotated[Path, typer.Argument(help="Folder of NIfTI files or DICOM series.")],
    destination: Annotated[Path, typer.Argument(help="Folder of the new dataset.")],
    masks_root: Annotated[
        Path | None, typer.Option(help="Label maps in a parallel folder; beside if absent.")
    ] = None,
    mask_suffix: Annotated[str, typer.Option(help="NAME_mask.nii belongs to NAME.nii.")] = "_mask",
    mask_replace: Annotated[
        str | None, typer.Option(help="TEXT=OTHER instead, e.g. volume=segmentation.")
    ] = None,
    axis: Axis = "through-plane",
    window: Window = "percentiles",
    neighbours: Neighbours = 0,
    bits: Bits = 8,
    mask_value: Annotated[
        list[str] | None, typer.Option(help="VALUE=CLASS, e.g. 2=tumour; 1=lesion if absent.")
    ] = None,
    lesion_class: LesionClass = None,
    lesion_label: LesionLabel = None,
    lesion_free: LesionFree = None,
    labels: Annotated[Path | None, typer.Option(help="Table for volumes without masks.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="FIELD=COLUMN of that table, e.g. label=diagnosis.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the dataset.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """NIfTI volumes (CT, MR) as slices, with their label maps."""
    from dxseg.data.importers.nifti import import_volumes
    from dxseg.data.importers.volume_dataset import DEFAULT_MASK_VALUES
    from dxseg.data.readers.slicing import make_slicing
    from dxseg.io.progress import reporting

    replaced = None
    if mask_replace is not None:
        replaced = pair(mask_replace, "--mask-replace", "TEXT=OTHER, e.g. volume=segmentation")
    slicing = make_slicing(axis=axis, window=window, neighbours=neighbours, bits=bits)
    with reporting(err, "Importing volumes") as progress:
        done = import_volumes(
            source,
            destination,
            name=name,
            masks_root=masks_root,
            mask_suffix=mask_suffix,
            mask_replace=replaced,
            slicing=slicing,
            mask_values=mask_values(mask_value) if mask_value else DEFAULT_MASK_VALUES,
            lesion_classes=lesion_class or (),
            lesion_label=lesion_label,
            lesion_free=lesion_free or (),
            labels=labels,
            label_columns=column_pairs(column or []),
            overwrite=overwrite,
            progress=progress,
        )
    print_import(done)


@importer.command("dicom")
def import_dicom_command(
    source: Annotated[Path, typer.Argument(help="Folder that a PACS exported.")],
    destination: Annotated[Path, typer.Argument(help="Folder of the new dataset.")],
    key: Annotated[
        Path | None, typer.Option(help="Of the pseudonyms; DESTINATION.key if absent.")
    ] = None,
    modality: Annotated[
        list[str] | None, typer.Option(help="Take only these, e.g. US. May be repeated.")
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="REGION=CLASS: number or label in SEG or RTSTRUCT.")
    ] = None,
    axis: Axis = "through-plane",
    window: Window = "percentiles",
    neighbours: Neighbours = 0,
    bits: Bits = 8,
    lesion_class: LesionClass = None,
    lesion_label: LesionLabel = None,
    lesion_free: LesionFree = None,
    labels: Annotated[Path | None, typer.Option(help="Table of diagnoses.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="FIELD=COLUMN of that table, e.g. patient=PatID.")
    ] = None,
    label_level: Annotated[
        str | None, typer.Option(help="image: the table speaks of each image, not of a study.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the dataset.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """A PACS export: images, CT and MR series, their masks; patients become pseudonyms."""
    from dxseg.data.importers.dicom import import_dicom
    from dxseg.data.readers.slicing import make_slicing
    from dxseg.io.progress import reporting

    regions = dict(pair(text, "--region", "REGION=CLASS, e.g. 1=tumour") for text in region or [])
    slicing = make_slicing(axis=axis, window=window, neighbours=neighbours, bits=bits)
    with reporting(err, "Importing DICOM") as progress:
        done = import_dicom(
            source,
            destination,
            key=key,
            modalities=modality or (),
            regions=regions,
            slicing=slicing,
            lesion_classes=lesion_class or (),
            lesion_label=lesion_label,
            lesion_free=lesion_free or (),
            labels=labels,
            label_columns=column_pairs(column or []),
            label_level=label_level,
            name=name,
            overwrite=overwrite,
            progress=progress,
        )
    print_import(done)


@importer.command("msd")
def import_msd_command(
    source: Annotated[Path, typer.Argument(help="Folder of a task, with dataset.json.")],
    destination: Annotated[Path, typer.Argument(help="Folder of the new dataset.")],
    labels: Annotated[
        Path | None, typer.Option(help="Table with volume_id and label, for test volumes.")
    ] = None,
    axis: VolumeAxis = None,
    window: VolumeWindow = None,
    lesion_class: LesionClass = None,
    name: Annotated[str | None, typer.Option(help="Of the dataset.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """A task of the Medical Segmentation Decathlon, as slices."""
    from dxseg.data.importers.msd import import_msd
    from dxseg.io.progress import reporting

    with reporting(err, "Importing volumes") as progress:
        done = import_msd(
            source,
            destination,
            labels=labels,
            slicing=chosen_slicing(axis, window),
            lesion_classes=lesion_class or (),
            name=name,
            overwrite=overwrite,
            progress=progress,
        )
    print_import(done)
