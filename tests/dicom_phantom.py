"""DICOM objects made in memory: images, series of known geometry, masks drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import pack_bits
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
    generate_uid,
)

Array = npt.NDArray[Any]

SQUARE = np.array([[2, 2], [6, 2], [6, 6], [2, 6]]) - 0.5
"""Corners (column, row) around 4 x 4 pixels."""


def make_image(pixels: Array, **attributes: Any) -> Dataset:
    """An image of (H, W), (H, W, 3) or (frames, H, W) that only needs to be saved."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = UltrasoundImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.Modality, ds.PatientID, ds.PatientName, ds.StudyDate = "US", "P1", "", ""
    color = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.ndim == 3 and not color:
        ds.NumberOfFrames = len(pixels)
    ds.Rows, ds.Columns = pixels.shape[:2] if color else pixels.shape[-2:]
    ds.SamplesPerPixel = 3 if color else 1
    ds.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
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


def segmentation(
    sources: Sequence[Dataset], masks: dict[int, Any], kind: str = "BINARY", **attributes: Any
) -> Any:
    """A SEG written by highdicom: (slice, row, column) of 0 and 1 for each segment number."""
    highdicom = pytest.importorskip("highdicom")
    from highdicom.sr.coding import CodedConcept

    concept = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
    algorithm = highdicom.AlgorithmIdentificationSequence("dxseg", concept, "1")
    segments = [
        highdicom.seg.SegmentDescription(
            number, f"label {number}", concept, concept, "AUTOMATIC", algorithm
        )
        for number in masks
    ]
    for ds in sources:
        ds.PatientBirthDate, ds.PatientSex, ds.StudyID, ds.StudyTime = "", "", "", ""
        ds.AccessionNumber, ds.ReferringPhysicianName = "", ""
    return highdicom.seg.Segmentation(
        sources,
        np.stack([masks[number] for number in sorted(masks)], axis=-1).astype(np.uint8),
        kind,
        segments,
        generate_uid(),
        1,
        generate_uid(),
        1,
        "dxseg",
        "dxseg",
        "1",
        "1",
        omit_empty_frames=True,
        **attributes,
    )


def structure_set(
    sources: Sequence[Dataset], contours: Sequence[Any], kind: str = "CLOSED_PLANAR"
) -> Dataset:
    """An RTSTRUCT of one region: contours (N, 3) in the patient's coordinates."""
    ds, region, name = Dataset(), Dataset(), Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = sources[0].StudyInstanceUID, generate_uid()
    ds.Modality, ds.PatientID = "RTSTRUCT", sources[0].PatientID
    name.ROINumber, name.ROIName = 7, "GTV"
    ds.StructureSetROISequence = [name]
    region.ReferencedROINumber = 7
    region.ContourSequence = []
    for points in contours:
        contour = Dataset()
        contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
        contour.ContourData = [f"{value:.6g}" for value in np.ravel(points)]
        region.ContourSequence.append(contour)
    ds.ROIContourSequence = [region]
    series, study, space = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = sources[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence = [series]
    space.RTReferencedStudySequence = [study]
    ds.ReferencedFrameOfReferenceSequence = [space]
    return ds


def place(ds: Dataset, polygon: Any, lift: float = 0.0) -> Any:
    """Turn corners (column, row) on a slice into the patient's coordinates."""
    row, column = np.reshape(ds.ImageOrientationPatient, (2, 3)).astype(float)
    across = np.cross(row, column)
    return (
        np.array(ds.ImagePositionPatient, dtype=float)
        + polygon[:, :1] * row * ds.PixelSpacing[1]
        + polygon[:, 1:] * column * ds.PixelSpacing[0]
        + lift * across
    )


def plain_segmentation(picture: Dataset, mask: Any) -> Dataset:
    """A SEG of one frame that says what it was drawn on, and no more."""
    seg, segment, frame = Dataset(), Dataset(), Dataset()
    seg.file_meta = picture.file_meta
    seg.SOPClassUID, seg.SOPInstanceUID = SegmentationStorage, generate_uid()
    seg.StudyInstanceUID, seg.SeriesInstanceUID = picture.StudyInstanceUID, generate_uid()
    seg.Modality, seg.SegmentationType, seg.NumberOfFrames = "SEG", "BINARY", 1
    seg.Rows, seg.Columns = mask.shape
    seg.SamplesPerPixel, seg.PhotometricInterpretation = 1, "MONOCHROME2"
    seg.BitsAllocated, seg.BitsStored, seg.HighBit, seg.PixelRepresentation = 1, 1, 0, 0
    seg.PixelData = pack_bits(mask)
    seg["PixelData"].VR = "OB"
    segment.SegmentNumber, segment.SegmentLabel = 1, "lesion"
    seg.SegmentSequence = [segment]
    identity, derivation, source = Dataset(), Dataset(), Dataset()
    identity.ReferencedSegmentNumber = 1
    source.ReferencedSOPInstanceUID = picture.SOPInstanceUID
    derivation.SourceImageSequence = [source]
    frame.SegmentIdentificationSequence = [identity]
    frame.DerivationImageSequence = [derivation]
    seg.PerFrameFunctionalGroupsSequence = [frame]
    return seg
