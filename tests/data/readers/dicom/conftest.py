"""Fixtures of DICOM: what `dicom_phantom` makes, and where it is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_phantom import Array, make_image, make_series, save


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
            save(ds, tmp_path / folder / f"{number:04}.dcm")
        return tmp_path / folder

    return write
