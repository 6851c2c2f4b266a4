"""Volumes: voxels with a position in space, whatever the file format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grid = tuple[NDArray[np.float64], tuple[int, int, int]]
"""The affine (4, 4), from voxel indices to millimetres in RAS+, and the shape (I, J, K)."""


@dataclass(frozen=True)
class Volume:
    """A three-dimensional image and its position in space.

    Attributes:
        voxels: (I, J, K), integers or float32; CT in Hounsfield units.
        affine: (4, 4) float64, from voxel indices to millimetres in RAS+ space, as in NIfTI.
        notes: Assumptions of the reader; importers report them.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along each axis of the array."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)


@dataclass(frozen=True)
class VolumeLabels:
    """The label map of a volume.

    Attributes:
        values: (I, J, K) whole numbers on the volume's grid; 0 is background.
        unknown: (I, J, K), where there may be more than `values` shows, such as on slices with a
            contour that cannot be read; None: nowhere.
        notes: What was left out; importers report them.
    """

    values: NDArray[Any]
    unknown: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundVolume:
    """A volume that an importer has found, before its voxels are read.

    Attributes:
        volume_id: Its id in the dataset; does not identify a patient.
        load: Reads the voxels.
        load_labels: Reads the label map on the same grid; None if there is none.
        patient_id: Patient in the dataset; a keyed hash if the file identifies a patient.
        keys: Keys on which a table of labels may be joined, such as `{"patient": ...,
            "study": ..., "accession": ...}`. Never written to the dataset.
        path: Path of its file below the imported folder, with "/"; "" for DICOM.
        digest: Digest of the content of its files, 64 hexadecimal digits. Without one, an
            interrupted import converts the volume again.
        grid: Reads its grid without its voxels.
        is_asked: Whether the volume is left out, with a question, if it looks like a label map.
    """

    volume_id: str
    load: Callable[[], Volume]
    load_labels: Callable[[], VolumeLabels] | None = None
    patient_id: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    path: str = ""
    digest: Callable[[], str] | None = None
    grid: Callable[[], Grid] | None = None
    is_asked: bool = False
