"""Volumes to import, and DICOM objects as `dicom_phantom` makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_phantom import Array, make_image, make_series
from dicom_phantom import save as save_dicom
from volume_phantom import TURNS, ct, save


@pytest.fixture
def lits(tmp_path: Path) -> Path:
    """Three volumes named as LiTS names them, each stored in its own order; the last is healthy."""
    for number, turn in enumerate((TURNS[0], TURNS[21], TURNS[38])):
        voxels, labels = ct(number, tumour=number < 2)
        save(tmp_path / f"lits/volume-{number}.nii.gz", voxels, turn)
        save(tmp_path / f"lits/segmentation-{number}.nii.gz", labels, TURNS[5 * number])
    return tmp_path / "lits"


@pytest.fixture(scope="session")
def phantom() -> Array:
    """(6, 9, 11) Hounsfield units without any symmetry."""
    return np.random.default_rng(0).integers(-1000, 2000, (6, 9, 11))


@pytest.fixture(scope="session")
def image() -> Callable[..., Dataset]:
    return make_image


@pytest.fixture(scope="session")
def series() -> Callable[..., list[Dataset]]:
    return make_series


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Path]:
    """Save objects into a folder, in an order that says nothing."""

    def write(objects: list[Dataset], folder: str = "export") -> Path:
        names = np.random.default_rng(len(objects)).permutation(len(objects))
        for number, ds in zip(names, objects, strict=True):
            save_dicom(ds, tmp_path / folder / f"{number:04}.dcm")
        return tmp_path / folder

    return write
