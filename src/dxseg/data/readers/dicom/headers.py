"""Headers of the objects of an export, and planes of their frames, before pixels are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dxseg.data.geometry import Spacing
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
# Pixels that are no picture of a patient.
_DERIVED_MODALITIES = ("RTDOSE", "RTPLAN", "PR", "SR", "KO", "REG", "FID", "RWV", "SEG", "M3D")
# Codes of PS3.3 C.7.3.1.1.1 that are pictures; any other text of a file is not repeated.
_PICTURES = (
    *("BI", "CR", "CT", "DX", "ES", "GM", "IO", "IVOCT", "IVUS", "MG", "MR", "NM", "OP"),
    *("OPT", "OT", "PT", "PX", "RF", "RG", "SM", "TG", "US", "XA", "XC"),
)
OTHER = "other"
_FRAMES_LIMIT = 2**16


@dataclass(frozen=True)
class Plane:
    """A frame and its position in the patient's coordinates (LPS+, mm).

    Attributes:
        frame: Its number in the object, from 0.
        position: Center of the first pixel; None if unknown.
        orientation: Direction of a row, then of a column, three cosines each.
        spacing: Distance of rows, and of columns (mm).
        thickness: Thickness of the slice (mm), or the distance between slices; used for a single
            slice.
    """

    frame: int
    position: Numbers | None
    orientation: Numbers | None
    spacing: Numbers | None
    thickness: float | None


@dataclass(frozen=True)
class Header:
    """Identifiers and kind of an object; never written anywhere.

    Attributes:
        path: The file.
        name: Its name in messages; does not identify a patient, as paths may.
        sop_class: UID of its class.
        sop_uid: UID of the object itself.
        series_uid: UID of its series.
        study_uid: UID of its study.
        frame_of_reference: UID of the space that positions are in.
        patient_id: The hospital's id of the patient.
        accession: Accession number.
        modality: Modality such as "CT"; `OTHER` if it is no code of pictures in the
            standard.
        derived: Whether its pixels are no picture, such as doses.
        localiser: Whether it is a scout view.
        burned_in: Whether it declares patient data in the pixels.
        layout: Pixel layout; None if it has no pixels.
        planes: One per frame.
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
        """Whether it is a mask of other objects."""
        return self.sop_class in (*SEGMENTATION, STRUCTURE_SET)

    @property
    def is_volume(self) -> bool:
        """Whether its frames are slices of a volume."""
        placed = bool(self.planes) and all(plane.position for plane in self.planes)
        return self.modality in VOLUME_MODALITIES and placed and not self.localiser


class UnusedObjectError(DxsegError):
    """A file is whole, but no picture of a patient."""


@contextmanager
def alias_in_errors(path: Path, name: str) -> Iterator[None]:
    """Replace the path of a file in errors by a name that does not identify a patient.

    Args:
        path: The file, whose path may contain a patient's name.
        name: The replacement.
    """
    try:
        yield
    except DxsegError as error:
        raise type(error)(str(error).replace(str(path), name)) from None


def scan(
    source: Path, progress: Progress | None = None
) -> tuple[list[Header], list[tuple[str, str]], list[Path]]:
    """Read the headers of all DICOM files in a folder.

    Messages identify a file by its number in the order of `find SOURCE -type f | LC_ALL=C sort`.
    Links are not followed.

    Args:
        source: The folder, searched through all levels.
        progress: Called with (done, total) after each file.

    Returns:
        The headers in that order; names of the files left out, and why; and those of them that are
        damaged or no DICOM.
    """
    paths = sorted(_files(source), key=lambda path: os.fsencode(path.relative_to(source)))
    headers: list[Header] = []
    skipped: list[tuple[str, str]] = []
    unreadable: list[Path] = []
    seen: dict[str, str] = {}
    for number, path in enumerate(paths, 1):
        name = f"file {number}"
        try:
            header = _accepted(path, name)
            if header.sop_uid in seen:
                raise UnusedObjectError(f"{name}: the same object as {seen[header.sop_uid]}")
            seen[header.sop_uid] = name
            headers.append(header)
        except DxsegError as error:
            skipped.append((name, str(error).removeprefix(f"{name}: ")))
            if not isinstance(error, UnusedObjectError):
                unreadable.append(path)
        if progress is not None:
            progress(number, len(paths))
    return headers, skipped, unreadable


def read_header(path: Path, name: str) -> Header:
    """Read the header of an object, and its planes.

    Args:
        path: The file.
        name: Its name in messages.

    Raises:
        DxsegError: It is not DICOM, damaged, has no UIDs, or claims pixels it cannot contain.
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
    """Read the position of a frame, from its functional groups or the object itself.

    Args:
        ds: The object.
        frame: Number of the frame, from 0.
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


def pixel_spacing(ds: Dataset) -> Spacing | None:
    """Find the pixel size of an image that is not a slice.

    PixelSpacing; else the only region of an ultrasound image, if its units are centimeters; else
    the pixels of the detector (ImagerPixelSpacing), which are larger than in the patient because of
    magnification.

    Args:
        ds: The object.

    Returns:
        Height and width in millimeters, or None.
    """
    spacing = read_floats(ds, "PixelSpacing", 2)
    regions = read_items(ds, "SequenceOfUltrasoundRegions")
    if spacing is None and len(regions) == 1:
        units = [read_text(regions[0], f"PhysicalUnits{axis}Direction") for axis in "YX"]
        deltas = [read_floats(regions[0], f"PhysicalDelta{axis}", 1) for axis in "YX"]
        if units == ["3", "3"] and all(deltas):
            spacing = tuple(10 * abs(delta[0]) for delta in deltas if delta)
    spacing = spacing or read_floats(ds, "ImagerPixelSpacing", 2)
    return None if spacing is None or min(spacing) <= 0 else (spacing[0], spacing[1])


def _accepted(path: Path, name: str) -> Header:
    if not is_dicom(path):
        raise DxsegError(f"{name}: not a DICOM file")
    header = read_header(path, name)
    if header.is_mask:
        return header
    if header.layout is None:
        raise UnusedObjectError(f"{name}: {_kind(header.sop_class)}, not an image")
    if header.derived:
        raise UnusedObjectError(f"{name}: {_kind(header.sop_class)}, not a picture of a patient")
    if header.localiser:
        raise UnusedObjectError(f"{name}: a localiser, not a slice of the volume")
    if header.modality in VOLUME_MODALITIES and not header.is_volume:
        raise UnusedObjectError(
            f"{name}: {header.modality} without position; expected slices in space"
        )
    return header


def _kind(sop_class: str) -> str:
    """Name the class of an object as the standard does, never by text of the file."""
    from pydicom.uid import UID

    kind = UID(sop_class).name
    return "an object of unknown kind" if kind == sop_class else kind


def _files(source: Path) -> Iterator[Path]:
    for base, _, names in os.walk(source):
        for name in names:
            path = Path(base, name)
            if path.is_file() and not path.is_symlink():
                yield path
