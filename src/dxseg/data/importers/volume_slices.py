"""Writing the slices of one volume, and a record by which an interrupted import continues."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, PositiveInt, ValidationError

from dxseg.data.importers.encode import encode_image
from dxseg.data.readers.mask_like import is_mask_like
from dxseg.data.readers.sliced_volume import SlicedVolume
from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume import FoundVolume, Volume, VolumeLabels
from dxseg.errors import DxsegError
from dxseg.io.atomic import atomic_path, sha256_file, sha256_json, write_text_atomic

IMAGES, MASKS, RECORDS = "images", "masks", ".volumes"

_FORMAT = 5
"""Part of every record: raise it when slicing changes what is written."""
_VALUES = 2**16
_Row = tuple[float, float, float, float]


@dataclass(frozen=True)
class SliceRules:
    """Rules for all volumes of an import.

    Attributes:
        slicing: Rule by which volumes become images.
        mask_values: Mask class of each value of the label maps.
        lesion_classes: Mask classes that are lesions.
        ignore_value: Value of the label maps for voxels that nobody has judged, or None.
    """

    slicing: Slicing
    mask_values: Mapping[int, str]
    lesion_classes: tuple[str, ...]
    ignore_value: int | None = None

    @property
    def mask_classes(self) -> list[str]:
        """Mask classes in the order of `mask_values`."""
        return list(dict.fromkeys(self.mask_values.values()))

    @property
    def all_lesions(self) -> bool:
        """Whether a slice without a lesion has an empty mask."""
        return set(self.lesion_classes) == set(self.mask_classes)


class MaskLikeError(DxsegError):
    """A volume without a label map looks like a label map itself."""


class SliceRecord(BaseModel):
    """The files that were written for a volume.

    Attributes:
        key: Digest of the volume's files and the rules; "" if its label map could not be read, for
            a reason that may pass: the next import tries again.
        images: One file per slice, relative to the dataset.
        masks: One file per slice, "" if the mask is empty; None without a label map.
        lesion: Whether each slice shows a lesion; empty without a label map.
        unknown: Numbers of slices that may show a lesion that their mask lacks.
        ignored: Numbers of slices with voxels that nobody has judged: their masks are unknown.
        spacing: Millimeters between slices, rows and columns.
        affine: (4, 4) of the volume, from voxel indices to millimeters in RAS+.
        shape: (I, J, K) of the volume.
        positions: Of each slice of the volume, where they are no regular grid (`Volume`).
        is_resampled: Whether the slices are of a regular grid that the volume was brought onto.
        sha256: Digest of each file.
        mapped: Number of voxels of the label map with a mask class.
        dropped: Number of voxels of each value without a mask class.
        outside: Number of voxels with a value in the label map that are below the gray values,
            above them, and of all.
        notes: Assumptions, and what was left out.
    """

    key: str
    images: list[str]
    masks: list[str] | None
    lesion: list[bool]
    unknown: list[int] = []
    ignored: list[int] = []
    spacing: tuple[float, float, float]
    affine: tuple[_Row, _Row, _Row, _Row]
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    positions: list[tuple[float, float, float]] | None = None
    is_resampled: bool = False
    sha256: dict[str, str]
    mapped: int
    dropped: dict[int, int]
    outside: tuple[int, int, int] = (0, 0, 0)
    notes: list[str]


def slice_volume(found: FoundVolume, destination: Path, rules: SliceRules) -> SliceRecord:
    """Write the slices of a volume, or reuse those that an earlier import wrote.

    Args:
        found: The volume.
        destination: Folder of the dataset.
        rules: Rules of the import.

    Raises:
        MaskLikeError: The volume looks like a label map, and that is to be asked about.
        DxsegError: The volume cannot be read.
    """
    path = destination / RECORDS / f"{found.volume_id}.json"
    key = _key(found, rules)
    earlier = _earlier(path, destination)
    if key and earlier is not None and earlier.key == key:
        return earlier
    path.unlink(missing_ok=True)
    volume = found.load()
    if found.is_asked and is_mask_like(volume.voxels[..., None]):
        raise MaskLikeError(
            "looks like a label map (a background and few other values), but is none: files are "
            "named after their volume (or with --mask-suffix, --mask-replace, --masks-root of "
            "`dxseg import volumes`), DICOM objects are SEG; --keep-mask-like makes it a volume"
        )
    writer = _VolumeWriter(found, destination, rules, SlicedVolume(volume, rules.slicing))
    record = writer.write(volume, key)
    write_text_atomic(path, record.model_dump_json(indent=1) + "\n")
    return record


def remove_others(destination: Path, keep: set[str]) -> None:
    """Remove files that earlier imports wrote for volumes that no longer exist.

    Args:
        destination: Folder of the dataset.
        keep: Ids of the volumes that stay.
    """
    for path in (destination / RECORDS).glob("*.json"):
        if path.stem not in keep:
            for kind in (IMAGES, MASKS):
                _clear(destination, kind, path.stem)
            path.unlink()


class _VolumeWriter:
    """Writes the files of one volume and collects the fields of its record."""

    def __init__(
        self, found: FoundVolume, destination: Path, rules: SliceRules, sliced: SlicedVolume
    ) -> None:
        self.found, self.destination, self.rules, self.sliced = found, destination, rules, sliced
        self.sha256: dict[str, str] = {}

    def write(self, volume: Volume, key: str) -> SliceRecord:
        notes = list(volume.notes)
        labels = self._labels(volume, notes)
        folders = [_clear(self.destination, kind, self.found.volume_id) for kind in (IMAGES, MASKS)]
        suffix = ".png" if self.rules.slicing.channels == 1 else ".tif"
        images = [
            self._save(folders[0], index, suffix, self.sliced.image(index))
            for index in range(len(self.sliced))
        ]
        masks: list[str] | None = None
        lesion: list[bool] = []
        ignored: list[int] = []
        unknown: NDArray[np.bool_] = np.zeros(len(self.sliced), np.bool_)
        counts = np.zeros(_VALUES, np.int64)
        outside = np.zeros(3, np.int64)
        if labels is not None:
            masks = []
            notes.extend(labels.notes)
            if labels.unknown is not None:
                unknown = np.asarray(self.sliced.turn(labels.unknown).any(axis=(1, 2)))
            for index, values in enumerate(self.sliced.turn(labels.values)):
                counts += np.bincount(values.ravel(), minlength=_VALUES)
                outside += self._outside(index, values > 0)
                if self.rules.ignore_value is not None and self.rules.ignore_value in values:
                    ignored.append(index)
                mask, drawn = self._mask(values)
                lesion.append(drawn)
                empty = not drawn and (self.rules.all_lesions or unknown[index])
                masks.append("" if empty else self._save(folders[1], index, ".png", mask))
            unknown &= ~np.array(lesion)
        occurring = {int(value): int(counts[value]) for value in np.flatnonzero(counts) if value}
        dropped = {
            value: count
            for value, count in occurring.items()
            if value not in (*self.rules.mask_values, self.rules.ignore_value)
        }
        return SliceRecord(
            key="" if labels is None and self.found.load_labels is not None else key,
            images=images,
            masks=masks,
            lesion=lesion,
            unknown=np.flatnonzero(unknown).tolist(),
            ignored=ignored,
            spacing=self.sliced.spacing,
            affine=volume.affine.tolist(),
            shape=volume.voxels.shape,
            is_resampled=self.sliced.is_resampled,
            positions=None if volume.positions is None else volume.positions.tolist(),
            sha256=self.sha256,
            mapped=sum(occurring.get(value, 0) for value in self.rules.mask_values),
            dropped=dropped,
            outside=(int(outside[0]), int(outside[1]), int(outside[2])),
            notes=notes,
        )

    def _labels(self, volume: Volume, notes: list[str]) -> VolumeLabels | None:
        if self.found.load_labels is None:
            return None
        try:
            labels = self.found.load_labels()
            shape = labels.values.shape
            if shape != volume.voxels.shape:
                raise DxsegError(f"label map of {shape}, its image {volume.voxels.shape}")
        except DxsegError as error:
            notes.append(f"imported without its label map: {error}")
            return None
        return labels

    def _outside(self, index: int, marked: NDArray[np.bool_]) -> NDArray[np.int64]:
        low, high = self.sliced.limits
        voxels = self.sliced.values(index)[marked]
        return np.array([(voxels < low).sum(), (voxels > high).sum(), voxels.size])

    def _mask(self, values: NDArray[Any]) -> tuple[NDArray[np.uint8], bool]:
        """Make the mask (H, W, 1) of a slice of the label map, and whether it has a lesion."""
        classes = self.rules.mask_classes
        table = np.zeros(_VALUES, np.uint8)
        for value, name in self.rules.mask_values.items():
            table[value] = classes.index(name) + 1
        mask = table[values]
        wanted = [classes.index(name) + 1 for name in self.rules.lesion_classes]
        shown = mask * np.uint8(255) if len(classes) == 1 else mask
        return shown[:, :, None], bool(np.isin(mask, wanted).any())

    def _save(self, folder: Path, index: int, suffix: str, pixels: NDArray[Any]) -> str:
        path = folder / f"{index:04d}{suffix}"
        data = encode_image(pixels)
        # Not flushed one by one: after a power cut the digests show which files are damaged.
        with atomic_path(path, flush=False) as temporary:
            temporary.write_bytes(data)
        name = path.relative_to(self.destination).as_posix()
        self.sha256[name] = hashlib.sha256(data).hexdigest()
        return name


def _key(found: FoundVolume, rules: SliceRules) -> str:
    if found.digest is None:
        return ""
    return sha256_json(
        {
            "format": _FORMAT,
            "source": found.digest(),
            "slicing": rules.slicing.model_dump(mode="json"),
            "mask_values": [[value, name] for value, name in rules.mask_values.items()],
            "lesion_classes": list(rules.lesion_classes),
            "ignore_value": rules.ignore_value,
        }
    )


def _earlier(path: Path, destination: Path) -> SliceRecord | None:
    """Read a record; None unless all its files are unchanged."""
    try:
        record = SliceRecord.model_validate_json(path.read_bytes())
        for name, digest in record.sha256.items():
            if sha256_file(destination / name) != digest:
                return None
    except (OSError, ValidationError):
        return None
    return record


def _clear(destination: Path, kind: str, volume_id: str) -> Path:
    """Clear the folder of a volume's files, and return it."""
    folder = destination / kind / volume_id
    if not folder.resolve().is_relative_to(destination) or folder.is_symlink():
        raise DxsegError(f"{folder}: a link leads elsewhere; remove it")
    if folder.exists():
        shutil.rmtree(folder)
    return folder
