"""Tasks of the Medical Segmentation Decathlon."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from dxseg.data.exporters.nnunet_format import (
    DESCRIPTION_FILE,
    class_names,
    distinct,
    parse_json,
)
from dxseg.data.importers.names import natural_key
from dxseg.data.importers.nifti import volume_of_files
from dxseg.data.readers.nifti import is_nifti
from dxseg.data.readers.volume import FoundVolume
from dxseg.data.readers.volume_files import volume_stem
from dxseg.errors import DxsegError


class _Pair(BaseModel):
    """A training volume and its label map, as paths in the task's folder."""

    image: str
    label: str


class Task(BaseModel):
    """The fields of a task's `dataset.json` that are used (Antonelli et al., 2022)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    modality: dict[str, str] = Field(min_length=1)
    labels: dict[int, str]
    training: list[_Pair]
    test: list[str] = []
    reference: str = ""
    licence: str = ""

    @property
    def sequences(self) -> list[str]:
        """Names of the modalities, in the order of the fourth dimension."""
        numbers = sorted(self.modality, key=natural_key)
        return distinct([self.modality[number] for number in numbers])


def read_task(folder: Path) -> Task:
    """Read the `dataset.json` of a task.

    Args:
        folder: Folder of the task.

    Raises:
        DxsegError: It is absent or wrong.
    """
    listing = folder / DESCRIPTION_FILE
    task = parse_json(listing, Task)
    class_names({name: value for value, name in task.labels.items()}, listing)
    return task


def find_task_volumes(folder: Path, task: Task) -> list[FoundVolume]:
    """Find the training volumes with their label maps, and the test volumes.

    Args:
        folder: Folder of the task; resolved.
        task: Its `dataset.json`.

    Raises:
        DxsegError: A listed file is outside the folder, or not named as NIfTI.
    """
    pairs: list[tuple[str, str | None]] = [(pair.image, pair.label) for pair in task.training]
    pairs.extend((image, None) for image in task.test)
    return [
        volume_of_files(
            volume_stem(Path(image).name),
            (_find_listed(folder, image),),
            None if label is None else _find_listed(folder, label),
            sequences=len(task.modality),
        )
        for image, label in pairs
    ]


def _find_listed(folder: Path, listed: str) -> Path:
    """Find a listed file, which may not be outside the folder by name or through a link."""
    path = folder / listed
    if "\0" in listed or not is_nifti(path) or not path.resolve().is_relative_to(folder):
        raise DxsegError(
            f"{folder / DESCRIPTION_FILE}: lists {listed!r}; expected .nii or .nii.gz files in "
            "this folder, such as './imagesTr/liver_0.nii.gz'; correct it"
        )
    return path
