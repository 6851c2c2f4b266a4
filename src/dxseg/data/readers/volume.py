"""Volumes: voxels with a position in space, whatever file they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Volume:
    """A three-dimensional image and where it lies.

    Attributes:
        voxels: (I, J, K), integers or float32; CT in Hounsfield units.
        affine: (4, 4) float64, from voxel indices to millimetres in RAS+ space, as in NIfTI.
        notes: What the reader had to assume; importers report it.
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
class FoundVolume:
    """A volume that an importer found, before its voxels are read.

    Attributes:
        volume_id: Names it in the dataset; holds nothing that names a patient.
        load: Reads the voxels.
        load_labels: Reads the label map (I, J, K) on the same grid, or None where there is none.
        patient_id: What the dataset will hold; a keyed hash where the file names a patient.
        keys: What a table of study-level labels may be joined on, such as ``{"patient": ...,
            "study": ..., "accession": ...}``. Never written to the dataset.
        digest: Identifies the content of the files behind it, 64 hexadecimal digits. An import that
            was interrupted does a volume without one again.
    """

    volume_id: str
    load: Callable[[], Volume]
    load_labels: Callable[[], NDArray[Any]] | None = None
    patient_id: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    digest: Callable[[], str] | None = None
