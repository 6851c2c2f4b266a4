"""The verbs below `dxseg import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dxseg.errors import UsageError
from dxseg.terminal import err, out

importer = typer.Typer(no_args_is_help=True, help="Make a dataset of images in another layout.")

Overwrite = Annotated[bool, typer.Option(help="Replace the dataset that DESTINATION holds.")]
LesionFree = Annotated[
    list[str] | None,
    typer.Option(help="A label that means: no lesion, the mask is empty. May be repeated."),
]


@importer.command("busi")
def import_busi_command(
    source: Annotated[Path, typer.Argument(help="Folder with benign/, malignant/, normal/.")],
    destination: Annotated[Path, typer.Argument(help="Folder of the new dataset.")],
    overwrite: Overwrite = False,
) -> None:
    """BUSI breast ultrasound, as published; several masks of an image are united."""
    from dxseg.data.importers.busi import import_busi
    from dxseg.progress import reporting

    with reporting(err, "Importing") as progress:
        done = import_busi(source, destination, overwrite=overwrite, progress=progress)
    _print_import(done)


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
    from dxseg.progress import reporting

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
    _print_import(done)


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
    from dxseg.progress import reporting

    with reporting(err, "Importing") as progress:
        done = import_csv(
            table,
            destination,
            columns=_pairs(column),
            images_root=images_root,
            name=name,
            lesion_free=lesion_free or (),
            multi_label=multi_label,
            overwrite=overwrite,
            progress=progress,
        )
    _print_import(done)


@importer.command("volumes")
def import_volumes_command(
    source: Annotated[Path, typer.Argument(help="Folder of NIfTI files, searched in depth.")],
    destination: Annotated[Path, typer.Argument(help="Folder of the new dataset.")],
    masks_root: Annotated[
        Path | None, typer.Option(help="Label maps in a parallel folder; beside if absent.")
    ] = None,
    mask_suffix: Annotated[str, typer.Option(help="NAME_mask.nii belongs to NAME.nii.")] = "_mask",
    mask_replace: Annotated[
        str | None, typer.Option(help="TEXT=OTHER instead, e.g. volume=segmentation.")
    ] = None,
    axis: Annotated[
        str, typer.Option(help="through-plane, axial, coronal or sagittal.")
    ] = "through-plane",
    window: Annotated[
        str, typer.Option(help="liver, lung, brain, abdomen, LEVEL,WIDTH, or percentiles.")
    ] = "percentiles",
    neighbours: Annotated[int, typer.Option(help="Slices on each side as channels.")] = 0,
    bits: Annotated[int, typer.Option(help="Of a grey value: 8 or 16.")] = 8,
    mask_value: Annotated[
        list[str] | None, typer.Option(help="VALUE=CLASS, e.g. 2=tumour; 1=lesion if absent.")
    ] = None,
    lesion_class: Annotated[
        list[str] | None, typer.Option(help="A mask class that is a lesion; all if absent.")
    ] = None,
    lesion_label: Annotated[
        str | None, typer.Option(help="Label of slices whose mask shows a lesion.")
    ] = None,
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
    from dxseg.data.importers.volumes import DEFAULT_MASK_VALUES
    from dxseg.data.slicing import make_slicing
    from dxseg.progress import reporting

    replaced = None
    if mask_replace is not None:
        replaced = _pair(mask_replace, "--mask-replace", "TEXT=OTHER, e.g. volume=segmentation")
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
            mask_values=_mask_values(mask_value) if mask_value else DEFAULT_MASK_VALUES,
            lesion_classes=lesion_class or (),
            lesion_label=lesion_label,
            lesion_free=lesion_free or (),
            labels=labels,
            label_columns=_pairs(column or []),
            overwrite=overwrite,
            progress=progress,
        )
    _print_import(done)


VolumeAxis = Annotated[
    str | None, typer.Option(help="Of volumes: through-plane, axial, coronal or sagittal.")
]
VolumeWindow = Annotated[
    str | None, typer.Option(help="Of volumes: liver, lung, ..., LEVEL,WIDTH, or percentiles.")
]
LesionClass = Annotated[
    list[str] | None,
    typer.Option(help="Of volumes: a class that is a lesion; all if absent. May be repeated."),
]


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
    from dxseg.progress import reporting

    with reporting(err, "Importing") as progress:
        done = import_nnunet(
            source,
            destination,
            labels=labels,
            lesion_free=lesion_free or (),
            slicing=_slicing(axis, window) if axis or window else None,
            lesion_classes=lesion_class or (),
            name=name,
            overwrite=overwrite,
            progress=progress,
        )
    _print_import(done)


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
    from dxseg.progress import reporting

    with reporting(err, "Importing volumes") as progress:
        done = import_msd(
            source,
            destination,
            labels=labels,
            slicing=_slicing(axis, window),
            lesion_classes=lesion_class or (),
            name=name,
            overwrite=overwrite,
            progress=progress,
        )
    _print_import(done)


def _slicing(axis: str | None, window: str | None) -> Any:
    from dxseg.data.slicing import make_slicing

    return make_slicing(axis=axis or "through-plane", window=window or "percentiles")


def _print_import(done: Any) -> None:
    for note in done.notes:
        out.print(f"- {note}", soft_wrap=True)
    out.print(f"Dataset: {done.destination}", soft_wrap=True)


def _pairs(texts: list[str]) -> dict[str, str]:
    return dict(_pair(text, "--column", "FIELD=COLUMN, e.g. label=diagnosis") for text in texts)


def _mask_values(texts: list[str]) -> dict[int, str]:
    expected = "VALUE=CLASS, e.g. 2=tumour"
    pairs = [_pair(text, "--mask-value", expected) for text in texts]
    for value, name in pairs:
        if not (value.isascii() and value.isdecimal()):
            raise UsageError(f"--mask-value '{value}={name}': expected a number in {expected}")
    values = {int(value): name for value, name in pairs}
    if len(values) < len(pairs):
        raise UsageError(f"--mask-value {', '.join(texts)}: a value occurs twice; give it once")
    return values


def _pair(text: str, option: str, expected: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not (left and equals and right):
        raise UsageError(f"{option} {text!r}: expected {expected}")
    return left, right
