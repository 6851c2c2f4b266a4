"""DICOM objects made in memory: images, series of a phantom whose geometry is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    UltrasoundImageStorage,
    generate_uid,
)

Array = npt.NDArray[Any]


def make_image(pixels: Array, **attributes: Any) -> Dataset:
    """An image of (H, W), (H, W, 3) or (frames, H, W) that only needs to be saved."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = UltrasoundImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.Modality, ds.PatientID, ds.PatientName, ds.StudyDate = "US", "P1", "", ""
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.ndim == 3 and not colour:
        ds.NumberOfFrames = len(pixels)
    ds.Rows, ds.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    ds["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def save(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def make_series(
    volume: Array,
    *,
    spacing: tuple[float, float, float] = (2.0, 0.5, 0.75),
    origin: tuple[float, float, float] = (-10.0, 20.0, 30.0),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    intercept: float = -1024,
    **attributes: Any,
) -> list[Dataset]:
    """Slices of (slice, row, column) Hounsfield units; spacing of slices, rows, columns in mm."""
    across = np.cross(orientation[:3], orientation[3:])
    common = {
        "SOPClassUID": CTImageStorage,
        "Modality": "CT",
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "RescaleSlope": 1,
        "RescaleIntercept": intercept,
        "PixelSpacing": list(spacing[1:]),
        "SliceThickness": spacing[0],
        "ImageOrientationPatient": list(orientation),
    } | attributes
    return [
        make_image(
            np.asarray(part - intercept, dtype=np.int16),
            ImagePositionPatient=[float(v) for v in np.array(origin) + across * spacing[0] * index],
            InstanceNumber=index + 1,
            **common,
        )
        for index, part in enumerate(volume)
    ]


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
