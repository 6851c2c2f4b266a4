"""What an export holds: one header an object, one plane a frame, before pixels are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dxseg.data.readers.dicom.elements import functional_group, read_floats, read_items, read_text
from dxseg.data.readers.dicom.objects import PixelLayout, is_dicom, open_object, pixel_layout
from dxseg.errors import DxsegError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Progress = Callable[[int, int], None]
Numbers = tuple[float, ...]

SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
VOLUME_MODALITIES = ("CT", "MR", "PT")
# Hold numbers of pixels that are no picture of a patient.
_DERIVED_MODALITIES = ("RTDOSE", "RTPLAN", "PR", "SR", "KO", "REG", "FID", "RWV", "SEG", "M3D")
# Codes of PS3.3 C.7.3.1.1.1 that are pictures; what else a file may claim is not repeated.
_PICTURES = (
    *("BI", "CR", "CT", "DX", "ES", "GM", "IO", "IVOCT", "IVUS", "MG", "MR", "NM", "OP"),
    *("OPT", "OT", "PT", "PX", "RF", "RG", "SM", "TG", "US", "XA", "XC"),
)
OTHER = "other"
_FRAMES_LIMIT = 2**16


@dataclass(frozen=True)
class Plane:
    """A frame and where it lies, in the patient's coordinates (LPS+, mm).

    Attributes:
        frame: Its number in the object, from 0.
        position: Of the centre of the first pixel; None where it is not told.
        orientation: Direction of a row, then of a column, three cosines each.
        spacing: Between rows, between columns (mm).
        thickness: Of the slice (mm), or the distance between slices; used for a single slice.
    """

    frame: int
    position: Numbers | None
    orientation: Numbers | None
    spacing: Numbers | None
    thickness: float | None


@dataclass(frozen=True)
class Header:
    """What identifies an object and says what it is; never written anywhere.

    Attributes:
        path: The file.
        name: What messages call it; does not identify a patient, as paths may.
        sop_class: UID of its kind.
        sop_uid: UID of the object itself.
        series_uid: Of its series.
        study_uid: Of its study.
        frame_of_reference: UID of the space that positions are in.
        patient_id: As the hospital has it.
        accession: The number of the order.
        modality: Such as "CT"; `OTHER` where it is none of the standard's codes of pictures.
        derived: Whether its pixels are no picture, such as doses.
        localiser: Whether it is a scout view.
        burned_in: Whether it says that patient data is drawn into the pixels.
        layout: Of its pixels; None where it has none.
        planes: One a frame.
    """

    path: Path
    name: str
    sop_class: str
    sop_uid: str
    series_uid: str
    study_uid: str
    frame_of_reference: str
    patient_id: str
    accession: str
    modality: str
    derived: bool
    localiser: bool
    burned_in: bool
    layout: PixelLayout | None = None
    planes: tuple[Plane, ...] = ()

    @property
    def is_mask(self) -> bool:
        """Whether it outlines something in other objects."""
        return self.sop_class in (*SEGMENTATION, STRUCTURE_SET)

    @property
    def is_volume(self) -> bool:
        """Whether its frames are slices of a volume."""
        placed = bool(self.planes) and all(plane.position for plane in self.planes)
        return self.modality in VOLUME_MODALITIES and placed and not self.localiser


@contextmanager
def alias_in_errors(path: Path, name: str) -> Iterator[None]:
    """Let errors call a file by a name that does not identify a patient.

    Args:
        path: The file, whose path may hold a patient's name.
        name: What to call it instead.
    """
    try:
        yield
    except DxsegError as error:
        raise type(error)(str(error).replace(str(path), name)) from None


def scan(
    source: Path, progress: Progress | None = None
) -> tuple[list[Header], list[tuple[str, str]]]:
    """Read the headers of all DICOM files in a folder.

    Messages call a file by its number in the order of ``find SOURCE -type f | LC_ALL=C sort``.
    Links are not followed.

    Args:
        source: The folder, searched in depth.
        progress: Called with (done, total) after each file.

    Returns:
        The headers in that order; names and reasons of what is left out.
    """
    paths = sorted(_files(source), key=lambda path: os.fsencode(path.relative_to(source)))
    headers: list[Header] = []
    skipped: list[tuple[str, str]] = []
    seen: dict[str, str] = {}
    for number, path in enumerate(paths, 1):
        name = f"file {number}"
        try:
            header = _accepted(path, name)
            if header.sop_uid in seen:
                raise DxsegError(f"{name}: the same object as {seen[header.sop_uid]}")
            seen[header.sop_uid] = name
            headers.append(header)
        except DxsegError as error:
            skipped.append((name, str(error).removeprefix(f"{name}: ")))
        if progress is not None:
            progress(number, len(paths))
    return headers, skipped


def read_header(path: Path, name: str) -> Header:
    """Read what an object is, and its planes.

    Args:
        path: The file.
        name: What messages call it.

    Raises:
        DxsegError: It is no DICOM, damaged, has no UIDs, or claims pixels it cannot hold.
    """
    with alias_in_errors(path, name):
        ds = open_object(path)
        modality = read_text(ds, "Modality")
        header = Header(
            path=path,
            name=name,
            sop_class=read_text(ds, "SOPClassUID"),
            sop_uid=read_text(ds, "SOPInstanceUID"),
            series_uid=read_text(ds, "SeriesInstanceUID"),
            study_uid=read_text(ds, "StudyInstanceUID"),
            frame_of_reference=read_text(ds, "FrameOfReferenceUID"),
            patient_id=read_text(ds, "PatientID"),
            accession=read_text(ds, "AccessionNumber"),
            modality=modality if modality in _PICTURES else OTHER,
            derived=modality in _DERIVED_MODALITIES,
            localiser="LOCALIZER" in read_text(ds, "ImageType"),
            burned_in=read_text(ds, "BurnedInAnnotation") == "YES",
        )
        if not (header.sop_uid and header.series_uid and header.study_uid):
            raise DxsegError(f"{path}: has no UIDs of object, series and study; expected an image")
        if header.is_mask or "Rows" not in ds:
            return header
        layout = pixel_layout(ds, path)
        if layout.frames > _FRAMES_LIMIT:
            raise DxsegError(f"{path}: {layout.frames} frames; expected at most {_FRAMES_LIMIT}")
        planes = tuple(read_plane(ds, frame) for frame in range(layout.frames))
        return replace(header, layout=layout, planes=planes)


def read_plane(ds: Dataset, frame: int) -> Plane:
    """Read where a frame lies, from its functional groups or the object itself.

    Args:
        ds: The object.
        frame: From 0.
    """
    measures = functional_group(ds, frame, "PixelMeasuresSequence") or ds
    position = functional_group(ds, frame, "PlanePositionSequence") or ds
    orientation = functional_group(ds, frame, "PlaneOrientationSequence") or ds
    distances = [
        read_floats(measures, key, 1) for key in ("SpacingBetweenSlices", "SliceThickness")
    ]
    return Plane(
        frame,
        read_floats(position, "ImagePositionPatient", 3),
        read_floats(orientation, "ImageOrientationPatient", 6),
        read_floats(measures, "PixelSpacing", 2),
        next((abs(value[0]) for value in distances if value and value[0]), None),
    )


def pixel_spacing(ds: Dataset) -> Numbers | None:
    """Find the size of a pixel in an image that is no slice.

    PixelSpacing; else the one region of an ultrasound image, where its units are centimetres; else
    the pixels of the detector (ImagerPixelSpacing), which magnification makes larger than what they
    show.

    Args:
        ds: The object.

    Returns:
        Height and width in millimetres, or None.
    """
    spacing = read_floats(ds, "PixelSpacing", 2)
    regions = read_items(ds, "SequenceOfUltrasoundRegions")
    if spacing is None and len(regions) == 1:
        units = [read_text(regions[0], f"PhysicalUnits{axis}Direction") for axis in "YX"]
        deltas = [read_floats(regions[0], f"PhysicalDelta{axis}", 1) for axis in "YX"]
        if units == ["3", "3"] and all(deltas):
            spacing = tuple(10 * abs(delta[0]) for delta in deltas if delta)
    spacing = spacing or read_floats(ds, "ImagerPixelSpacing", 2)
    return spacing if spacing is not None and min(spacing) > 0 else None


def _accepted(path: Path, name: str) -> Header:
    if not is_dicom(path):
        raise DxsegError(f"{name}: not a DICOM file")
    header = read_header(path, name)
    if header.is_mask:
        return header
    if header.layout is None:
        raise DxsegError(f"{name}: {_kind(header.sop_class)}, not an image")
    if header.derived:
        raise DxsegError(f"{name}: {_kind(header.sop_class)}, not a picture of a patient")
    if header.localiser:
        raise DxsegError(f"{name}: a localiser, no slice of the volume")
    if header.modality in VOLUME_MODALITIES and not header.is_volume:
        raise DxsegError(f"{name}: {header.modality} without position; expected slices in space")
    return header


def _kind(sop_class: str) -> str:
    """Name a kind of object, only by what the standard calls it."""
    from pydicom.uid import UID

    kind = UID(sop_class).name
    return "an object of unknown kind" if kind == sop_class else kind


def _files(source: Path) -> Iterator[Path]:
    for base, _, names in os.walk(source):
        for name in names:
            path = Path(base, name)
            if path.is_file() and not path.is_symlink():
                yield path
