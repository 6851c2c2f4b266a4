"""Masks in DICOM: segmentations (SEG) frame by frame, contours (RTSTRUCT) filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.dicom.contours import fill_contours
from dxseg.data.readers.dicom.elements import functional_group, read_int, read_items, read_text
from dxseg.data.readers.dicom.headers import STRUCTURE_SET, Header, alias_in_errors, read_plane
from dxseg.data.readers.dicom.image import stored_frame
from dxseg.data.readers.dicom.objects import open_object, pixel_layout, translate_errors
from dxseg.data.readers.dicom.series import OFF_PLANE, Stack
from dxseg.data.readers.volume import VolumeLabels
from dxseg.errors import DxsegError, UsageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LabelMap = npt.NDArray[np.uint8]

_COSINE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class MaskObject:
    """A segmentation or structure set, before it is drawn.

    Attributes:
        header: Header of the object.
        series_uids: UIDs of the series it refers to.
        instance_uids: UIDs of the images it refers to.
        regions: Label of each segment or region, by its number. Labels are free text and must not
            be shown.
    """

    header: Header
    series_uids: frozenset[str]
    instance_uids: frozenset[str]
    regions: Mapping[int, str]

    @property
    def has_references(self) -> bool:
        """Whether it says which images it is of."""
        return bool(self.series_uids or self.instance_uids)

    def belongs_to(self, headers: Sequence[Header]) -> bool:
        """Whether it refers to any of these images, or, if it lists no images, to their series.

        Args:
            headers: Headers of the images.
        """
        if self.instance_uids:
            return any(header.sop_uid in self.instance_uids for header in headers)
        return any(header.series_uid in self.series_uids for header in headers)

    def choose(self, classes: Mapping[str, int]) -> dict[int, int]:
        """Choose regions.

        Args:
            classes: Mask value of a region, by its number or label; empty: the only region has
                value 1.

        Returns:
            Mask value of each chosen region, by its number.

        Raises:
            UsageError: `classes` is empty and there are several regions.
        """
        if not classes:
            if len(self.regions) > 1:
                raise UsageError(
                    f"{self.header.name}: a mask of {len(self.regions)} regions, numbered "
                    f"{', '.join(str(number) for number in sorted(self.regions))}; choose "
                    "the lesions with --region NUMBER=CLASS or LABEL=CLASS"
                )
            return dict.fromkeys(self.regions, 1)
        chosen = {}
        for number, label in self.regions.items():
            value = classes.get(label, classes.get(str(number)))
            if value is not None:
                chosen[number] = value
        return chosen


def read_mask_object(header: Header) -> MaskObject:
    """Read the regions and references of a segmentation or structure set.

    Args:
        header: Header of the object.

    Raises:
        DxsegError: It is damaged.
    """
    with alias_in_errors(header.path, header.name):
        ds = open_object(header.path)
        with translate_errors(header.path):
            structures = header.sop_class == STRUCTURE_SET
            series, instances = _structure_references(ds) if structures else _references(ds)
            sequence, number, label = (
                ("StructureSetROISequence", "ROINumber", "ROIName")
                if structures
                else ("SegmentSequence", "SegmentNumber", "SegmentLabel")
            )
            regions = {
                read_int(item, number, header.path, 0): read_text(item, label)
                for item in read_items(ds, sequence)
            }
            if not structures:
                # The background of label maps.
                regions.pop(0, None)
    return MaskObject(header, frozenset(series), frozenset(instances), regions)


def draw_on_stack(mask_object: MaskObject, chosen: Mapping[int, int], stack: Stack) -> VolumeLabels:
    """Draw a mask on the grid of a volume.

    Frames of a segmentation go to the slice in whose place they lie; nothing is resampled.
    Contours are filled on the slice in whose plane they lie (`dxseg.data.readers.dicom.contours`);
    one that cannot be filled makes the slices that it may belong to unknown.

    Args:
        mask_object: The mask.
        chosen: Mask value of each region; where regions overlap the highest wins.
        stack: The volume's grid.

    Returns:
        Values (column, row, slice).

    Raises:
        DxsegError: A frame is on another grid or damaged; or nothing is drawn: slices are then
            unknown, not empty.
    """
    header = mask_object.header
    labels = np.zeros(stack.shape, np.uint8)
    unknown: npt.NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    with alias_in_errors(header.path, header.name):
        if header.sop_class == STRUCTURE_SET:
            contours = fill_contours(header, chosen, stack)
            drawn, notes = iter(contours.regions), contours.notes
            marked = np.isin(np.arange(len(stack.slices)), list(contours.unknown))
            unknown = np.broadcast_to(marked, stack.shape) if marked.any() else None
        else:
            drawn = _frames(header, chosen, stack)
        for index, value, inside in drawn:
            target = labels[:, :, index]
            np.maximum(target, np.uint8(value) * inside.T, out=target)
        if not labels.any():
            why = f" ({'; '.join(notes)})" if notes else ""
            raise DxsegError(f"{header.path}: has no pixel in the requested regions{why}")
    return VolumeLabels(labels, unknown, tuple(f"{header.name}: {note}" for note in notes))


def draw_on_image(mask_object: MaskObject, chosen: Mapping[int, int], image: Header) -> LabelMap:
    """Draw a segmentation on an image that has no position in space.

    Args:
        mask_object: A segmentation.
        chosen: Mask value of each region; where regions overlap the highest wins.
        image: The image, of one frame.

    Returns:
        (height, width), 0 is background.

    Raises:
        DxsegError: It is a structure set, of another size, damaged, or has no pixels.
    """
    header = mask_object.header
    assert image.layout is not None
    with alias_in_errors(header.path, header.name):
        if header.sop_class == STRUCTURE_SET:
            raise DxsegError(f"{header.path}: contours in space, but its image has no position")
        labels = np.zeros((image.layout.rows, image.layout.columns), np.uint8)
        for frame in _segments(header, chosen):
            if image.sop_uid not in frame.sources:
                continue
            if frame.inside.shape != labels.shape:
                raise DxsegError(f"{header.path}: its size is not that of its image")
            labels = np.maximum(labels, np.uint8(frame.value) * frame.inside)
        if not labels.any():
            raise DxsegError(f"{header.path}: has no pixel in the requested regions")
    return labels


@dataclass(frozen=True)
class _Segment:
    """One frame of a segmentation for one mask value."""

    ds: Dataset
    frame: int
    value: int
    inside: npt.NDArray[np.bool_]

    @property
    def sources(self) -> set[str]:
        return _sources(functional_group(self.ds, self.frame, "DerivationImageSequence"))


def _segments(header: Header, chosen: Mapping[int, int]) -> Iterator[_Segment]:
    path = header.path
    ds = open_object(path, pixels=True)
    kind = read_text(ds, "SegmentationType")
    if kind not in ("BINARY", "LABELMAP"):
        raise DxsegError(f"{path}: not a binary segmentation; expected one; threshold it first")
    layout = pixel_layout(ds, path)
    for frame in range(layout.frames):
        if kind == "LABELMAP":
            stored = stored_frame(ds, frame, layout, path)
            for number, value in chosen.items():
                if (stored == number).any():
                    yield _Segment(ds, frame, value, stored == number)
            continue
        identity = functional_group(ds, frame, "SegmentIdentificationSequence")
        number = 0 if identity is None else read_int(identity, "ReferencedSegmentNumber", path, 0)
        if number in chosen:
            inside = stored_frame(ds, frame, layout, path) > 0
            yield _Segment(ds, frame, chosen[number], inside)


def _frames(
    header: Header, chosen: Mapping[int, int], stack: Stack
) -> Iterator[tuple[int, int, npt.NDArray[np.bool_]]]:
    own = {
        part.header.sop_uid: index
        for index, part in enumerate(stack.slices)
        if len(part.header.planes) == 1
    }
    for segment in _segments(header, chosen):
        if segment.inside.shape != (stack.rows, stack.columns):
            raise DxsegError(
                f"{header.path}: frames of {segment.inside.shape} pixels (height, width), its "
                f"images have {(stack.rows, stack.columns)}; resample it onto the images' grid"
            )
        plane = read_plane(segment.ds, segment.frame)
        if plane.position is not None:
            index = _slice_at(plane.position, plane.orientation, stack, header)
        else:
            known = [own[uid] for uid in segment.sources if uid in own]
            if len(known) != 1:
                raise DxsegError(f"{header.path}: frames without position or source image")
            index = known[0]
        yield index, segment.value, segment.inside


def _slice_at(
    position: Sequence[float], orientation: Sequence[float] | None, stack: Stack, header: Header
) -> int:
    """Find the slice whose first pixel has the position of a frame's."""
    column, row, index = stack.voxels_at(np.array([position]))[0]
    cosines = stack.slices[0].plane.orientation
    turned = (
        orientation is not None
        and np.abs(np.subtract(orientation, cosines or ())).max() > _COSINE_TOLERANCE
    )
    nearest = round(float(index))
    off = max(abs(column), abs(row), abs(index - nearest))
    if turned or off > OFF_PLANE or not 0 <= nearest < len(stack.slices):
        raise DxsegError(
            f"{header.path}: a frame is on none of its images' slices; expected the same grid; "
            "resample it onto the images"
        )
    return nearest


def _references(ds: Dataset) -> tuple[set[str], set[str]]:
    series, instances = set(), set()
    for item in read_items(ds, "ReferencedSeriesSequence"):
        series.add(read_text(item, "SeriesInstanceUID"))
        for image in read_items(item, "ReferencedInstanceSequence"):
            instances.add(read_text(image, "ReferencedSOPInstanceUID"))
    for group in read_items(ds, "PerFrameFunctionalGroupsSequence"):
        for item in read_items(group, "DerivationImageSequence"):
            instances |= _sources(item)
    return series, instances


def _sources(derivation: Dataset | None) -> set[str]:
    if derivation is None:
        return set()
    images = read_items(derivation, "SourceImageSequence")
    return {read_text(image, "ReferencedSOPInstanceUID") for image in images}


def _structure_references(ds: Dataset) -> tuple[set[str], set[str]]:
    series, instances = set(), set()
    for space in read_items(ds, "ReferencedFrameOfReferenceSequence"):
        for study in read_items(space, "RTReferencedStudySequence"):
            for item in read_items(study, "RTReferencedSeriesSequence"):
                series.add(read_text(item, "SeriesInstanceUID"))
                instances |= _image_references(item)
    for region in read_items(ds, "ROIContourSequence"):
        for contour in read_items(region, "ContourSequence"):
            instances |= _image_references(contour)
    return series, instances


def _image_references(item: Dataset) -> set[str]:
    images: list[Any] = read_items(item, "ContourImageSequence")
    return {read_text(image, "ReferencedSOPInstanceUID") for image in images}
