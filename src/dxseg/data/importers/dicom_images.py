"""Writing DICOM images that are not slices (ultrasound, radiographs) as files of a dataset."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dxseg.data.importers.destination import open_destination
from dxseg.data.importers.dicom_export import join_keys, patient_pseudonym
from dxseg.data.importers.encode import encode_image
from dxseg.data.importers.image_dataset import FoundCase, write_dataset
from dxseg.data.importers.report import ImportReport, LeftOut, Progress
from dxseg.data.importers.volume_labels import JoinedLabels, read_labels
from dxseg.data.importers.volume_slices import IMAGES, MASKS
from dxseg.data.readers.dicom.headers import Header, alias_in_errors, pixel_spacing
from dxseg.data.readers.dicom.identity import Pseudonyms
from dxseg.data.readers.dicom.image import displayed_frame
from dxseg.data.readers.dicom.masks import MaskObject, draw_on_image
from dxseg.data.readers.dicom.objects import open_object, pixel_layout
from dxseg.data.readers.mask_like import is_mask_like
from dxseg.data.readers.raster import Pixels
from dxseg.data.table.volumes import STUDY_LEVEL
from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import atomic_path

INSTANCE = "instance"


@dataclass(frozen=True)
class KeyedImage:
    """An object, its pseudonyms, and keys on which a table of labels may be joined."""

    header: Header
    volume_id: str
    patient_id: str
    keys: Mapping[str, str]


def name_images(headers: Sequence[Header], pseudonyms: Pseudonyms) -> list[KeyedImage]:
    """Give images their pseudonyms and the keys of a table of labels.

    Args:
        headers: Headers of objects that are images.
        pseudonyms: Names for images and patients.
    """
    return [
        KeyedImage(
            header,
            pseudonyms.name("image", header.sop_uid),
            patient_pseudonym(header, pseudonyms),
            {**join_keys(header), INSTANCE: header.sop_uid},
        )
        for header in headers
    ]


def write_images(
    images: Sequence[KeyedImage],
    masks: Sequence[tuple[MaskObject, Mapping[int, int]]],
    destination: Path,
    fields: dict[str, Any],
    *,
    labels: str | Path | None,
    label_columns: Mapping[str, str] | None,
    label_level: str | None,
    keep_mask_like: bool,
    skipped: LeftOut,
    overwrite: bool,
    progress: Progress | None,
) -> ImportReport:
    """Write the images of a dataset, one per frame, and the dataset.

    An interrupted import leaves no dataset and can be started again.

    Args:
        images: The objects.
        masks: Masks that may belong to them.
        destination: Folder of the dataset.
        fields: Fields of `DatasetSpec`.
        labels: CSV file of labels; see `read_labels`.
        label_columns: Columns of the table for its fields, where the names differ.
        label_level: Level of these labels; None: of the image where a row names it, else, and for a
            lesion in one of several frames, of the study.
        keep_mask_like: Whether what looks like a mask is an image.
        skipped: Files left out so far; the report adds to it.
        overwrite: Replace the dataset in `destination` if it has the same name.
        progress: Called with (done, total) after each object.

    Raises:
        UsageError: The level is unknown.
        DxsegError: The table is wrong, no image is left, or the destination has other files.
    """
    if label_level not in (None, "image", STUDY_LEVEL):
        raise UsageError(f"label level {label_level!r}: expected image or {STUDY_LEVEL}")
    table, lesion_free = JoinedLabels(), fields.get("lesion_free", ())
    if labels is not None:
        table = read_labels(Path(labels), label_columns or {}, images, lesion_free)
    open_destination(destination, fields["name"], overwrite)
    left_out = skipped
    cases: list[FoundCase] = []
    for done, image in enumerate(images, 1):
        label = table.labels.get((image.volume_id, None), "")
        try:
            frames = list(_frames(image, destination, keep_mask_like))
        except _MaskLikeError as error:
            frames = []
            left_out.mask(image.header.name, str(error))
        except DxsegError as error:
            frames = []
            left_out.image(image.header.name, _reason(error, image.header.name))
        own = INSTANCE in table.keys.get(image.volume_id, ())
        of_image = own and (len(frames) == 1 or label in lesion_free)
        level = label_level or ("image" if of_image else STUDY_LEVEL)
        for case in frames:
            case.label = label
            case.values["label_level"] = level if label else ""
        _draw(image, masks, frames, destination, len(fields["mask_classes"]), left_out)
        cases.extend(frames)
        if progress is not None:
            progress(done, len(images))
    spaced = any("spacing_y" in case.values for case in cases)
    report = write_dataset(
        cases,
        destination,
        destination,
        {**fields, "labels": sorted(table.names), "spacing_unit": "mm" if spaced else "pixel"},
        skipped=left_out,
        overwrite=overwrite,
        progress=progress,
    )
    report.notes.extend(table.notes)
    return report


class _MaskLikeError(DxsegError):
    """An image object looks like a mask."""


def _frames(image: KeyedImage, destination: Path, keep_mask_like: bool) -> Iterator[FoundCase]:
    """Write the frames of an object."""
    path = image.header.path
    with alias_in_errors(path, image.header.name):
        ds = open_object(path, pixels=True)
        layout = pixel_layout(ds, path)
        spacing = pixel_spacing(ds)
        for frame in range(layout.frames):
            pixels = displayed_frame(ds, frame, layout, path)
            if not keep_mask_like and layout.frames == 1 and is_mask_like(pixels):
                raise _MaskLikeError(
                    "looks like a mask that is stored as an image (black, with few other values); "
                    "--keep-mask-like imports it as an image; as a mask it has to be a SEG object, "
                    "or a file beside its image for `dxseg import csv`"
                )
            values: dict[str, Any] = {"patient_id": image.patient_id}
            if spacing is not None:
                values |= {"spacing_y": spacing[0], "spacing_x": spacing[1]}
            stem = image.volume_id
            if layout.frames > 1:
                stem = f"{stem}_{frame:04d}"
                values |= {"volume_id": image.volume_id, "slice_index": frame}
            yield FoundCase(_save(destination / IMAGES / stem, pixels), values=values)


def _save(path: Path, pixels: Pixels) -> Path:
    from PIL import Image

    if pixels.shape[2] == 3 and pixels.dtype == np.uint8:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        data, suffix = buffer.getvalue(), ".png"
    else:
        data, suffix = encode_image(pixels), ".png" if pixels.shape[2] == 1 else ".tif"
    target = path.with_name(f"{path.name}{suffix}")
    # Not flushed one by one: an interrupted import starts again.
    with atomic_path(target, flush=False) as temporary:
        temporary.write_bytes(data)
    return target


def _draw(
    image: KeyedImage,
    masks: Sequence[tuple[MaskObject, Mapping[int, int]]],
    frames: Sequence[FoundCase],
    destination: Path,
    classes: int,
    left_out: LeftOut,
) -> None:
    """Write the masks of an image of one frame; `write_dataset` merges several."""
    for mask_object, values in masks:
        if not frames or not mask_object.belongs_to([image.header]):
            continue
        name = mask_object.header.name
        try:
            if len(frames) > 1:
                raise DxsegError(
                    f"{name}: a mask of an image of {len(frames)} frames; expected one"
                )
            mask = draw_on_image(mask_object, values, image.header)
        except DxsegError as error:
            left_out.mask(name, _reason(error, name))
            frames[0].lacks_masks = True
            continue
        shown = mask * np.uint8(255) if classes == 1 else mask
        own = frames[0].masks
        stem = f"{image.volume_id}_{len(own)}" if own else image.volume_id
        own.append(_save(destination / MASKS / stem, shown[:, :, None]))


def _reason(error: DxsegError, name: str) -> str:
    return str(error).removeprefix(f"{name}: ")
