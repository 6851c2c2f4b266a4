"""Importing tasks of the Medical Segmentation Decathlon, and volumes of nnU-Net's raw datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from dxseg.data.exporters.nnunet_format import (
    DESCRIPTION_FILE,
    Description,
    class_names,
    find_channel_files,
    parse_json,
)
from dxseg.data.importers.nifti import nifti_volume
from dxseg.data.importers.report import ImportReport, Progress
from dxseg.data.importers.volume_dataset import write_volumes
from dxseg.data.readers.nifti import is_nifti, nifti_stem
from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume import FoundVolume
from dxseg.errors import DxsegError


class _Pair(BaseModel):
    """A training volume and its label map, as paths in the task's folder."""

    image: str
    label: str


class _Task(BaseModel):
    """The fields of a task's `dataset.json` that are used (Antonelli et al., 2022)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    modality: dict[str, str] = Field(min_length=1)
    labels: dict[int, str]
    training: list[_Pair]
    test: list[str] = []
    reference: str = ""
    licence: str = ""


def import_msd(
    source: str | Path,
    destination: str | Path,
    *,
    name: str | None = None,
    slicing: Slicing | None = None,
    lesion_classes: Sequence[str] = (),
    labels: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import a task of the Medical Segmentation Decathlon as slices.

    Its `dataset.json` lists training volumes with label maps, and test volumes without.

    Args:
        source: Folder of the task, with `dataset.json`.
        destination: Folder of the new dataset.
        name: Dataset name; default: folder name.
        slicing: Rule by which volumes become images; default: `Slicing()`.
        lesion_classes: Mask classes that are lesions, if others are organs; default: all.
        labels: CSV file with the columns volume_id and label, for volumes without a label map.
        overwrite: Replace the dataset in `destination` if it has the same name.
        progress: Called with (done, total) after each volume.

    Raises:
        UsageError: A lesion class has no mask value.
        DxsegError: `dataset.json` is absent or wrong, lists files outside the folder, or the
            volumes have several modalities; see also `write_volumes`.
    """
    folder = Path(source).resolve()
    listing = folder / DESCRIPTION_FILE
    task = parse_json(listing, _Task)
    if len(task.modality) > 1:
        raise DxsegError(
            f"{listing}: field modality, value {task.modality}: volumes of several modalities are "
            "not supported; split them into one file each, and import one with "
            "`dxseg import volumes`"
        )
    class_names({name: value for value, name in task.labels.items()}, listing)
    pairs = [(pair.image, pair.label) for pair in task.training]
    found = [
        nifti_volume(
            nifti_stem(Path(image).name), *(_find_listed(folder, p) for p in (image, label))
        )
        for image, label in pairs
    ]
    found.extend(
        nifti_volume(nifti_stem(Path(image).name), _find_listed(folder, image), None)
        for image in task.test
    )
    return write_volumes(
        found,
        destination,
        {
            "name": name or folder.name,
            "modality": next(iter(task.modality.values())),
            "provenance": task.reference,
            "licence": task.licence,
        },
        slicing=slicing or Slicing(),
        mask_values={value: name for value, name in task.labels.items() if value != 0},
        lesion_classes=lesion_classes,
        labels=labels,
        overwrite=overwrite,
        progress=progress,
    )


def import_raw_volumes(
    folder: Path,
    destination: Path,
    description: Description,
    fields: Mapping[str, str],
    *,
    slicing: Slicing | None,
    lesion_classes: Sequence[str],
    lesion_free: Sequence[str],
    labels: Path | None,
    overwrite: bool,
    progress: Progress | None,
) -> ImportReport:
    """Import a raw dataset of nnU-Net whose files are NIfTI, as slices.

    Args:
        folder: The raw dataset.
        destination: Folder of the new dataset.
        description: Its `dataset.json`.
        fields: Fields of `DatasetSpec`: name, modality, provenance, licence.
        slicing: Rule by which volumes become images; default: `Slicing()`.
        lesion_classes: Mask classes that are lesions; default: all.
        lesion_free: Labels that mean lesion-free.
        labels: CSV file with the columns case_id and label, for volumes without a label map.
        overwrite: Replace the dataset in `destination` if it has the same name.
        progress: Called with (done, total) after each volume.

    Raises:
        DxsegError: Volumes have several channels, there is an ignore label, or as `write_volumes`.
    """
    listing = folder / DESCRIPTION_FILE
    classes, ignore = class_names(description.labels, listing)
    if ignore is not None or len(description.channel_names) > 1:
        raise DxsegError(
            f"{listing}: volumes with "
            f"{'an ignore label' if ignore is not None else 'several channels'} are not supported; "
            "import one channel, or completed label maps, with `dxseg import volumes`"
        )
    skipped: list[tuple[str, str]] = []
    found: dict[str, FoundVolume] = {}
    for images, masks in (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs")):
        files = find_channel_files(folder / images, description.file_ending, skipped)
        for case_id, [image, *_] in files.items():
            mask = folder / masks / f"{case_id}{description.file_ending}"
            if not _leads_outside(folder, [image, mask], skipped):
                volume = nifti_volume(case_id, image, mask if mask.is_file() else None)
                found.setdefault(case_id, volume)
    return write_volumes(
        list(found.values()),
        destination,
        fields,
        slicing=slicing or Slicing(),
        mask_values=dict(enumerate(classes, 1)),
        lesion_classes=lesion_classes,
        lesion_free=lesion_free,
        labels=labels,
        label_columns={} if labels is None else {"volume_id": "case_id"},
        skipped=skipped,
        overwrite=overwrite,
        progress=progress,
    )


def _leads_outside(folder: Path, files: list[Path], skipped: list[tuple[str, str]]) -> bool:
    outside = [path for path in files if not path.resolve().is_relative_to(folder)]
    skipped.extend((str(path), f"a link leads outside {folder}") for path in outside)
    return bool(outside)


def _find_listed(folder: Path, listed: str) -> Path:
    """Find a listed file, which may not be outside the folder by name or through a link."""
    path = folder / listed
    if "\0" in listed or not is_nifti(path) or not path.resolve().is_relative_to(folder):
        raise DxsegError(
            f"{folder / DESCRIPTION_FILE}: lists {listed!r}; expected .nii or .nii.gz files in "
            "this folder, such as './imagesTr/liver_0.nii.gz'; correct it"
        )
    return path
