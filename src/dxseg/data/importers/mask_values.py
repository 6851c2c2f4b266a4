"""Which mask class a value, a color or a structure of a mask file is, where that is not plain."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.images import decode
from dxseg.data.readers.masks import Mask, MaskReading, gray_values, inspect_mask
from dxseg.data.readers.raster import Raster
from dxseg.errors import DxsegError, UsageError

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_COLOR_TOLERANCE = 24
"""Colors may differ by this much in a channel: lossy compression."""

DEFAULT_CLASSES = ("lesion",)


@dataclass(frozen=True)
class MaskRule:
    """How mask files become label maps.

    Attributes:
        classes: Names of the mask values 1, 2, ...
        values: Class number of a pixel value; empty: the values are class numbers.
        colors: Class number of a color (red, green, blue).
        structures: Class number of a structure that has its own mask file.
    """

    classes: list[str]
    values: Mapping[int, int] = field(default_factory=dict)
    colors: Mapping[tuple[int, ...], int] = field(default_factory=dict)
    structures: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether mask files are used as they are."""
        return not (self.values or self.colors or self.structures)

    def read(self, path: Path, structure: str = "") -> MaskReading:
        """Read a mask file.

        Args:
            path: The file.
            structure: What it shows, where each structure has a file.

        Raises:
            DxsegError: The file cannot be read, has no value of the rule, or is a color mask where
                values are given.
        """
        if self.structures:
            reading = inspect_mask(path, 1)
            return MaskReading(reading.mask * np.uint8(self.structures[structure]), reading.repair)
        if self.is_plain:
            return inspect_mask(path, len(self.classes))
        raster = decode(path)
        return _by_color(raster, self.colors, path) if self.colors else self._by_value(raster, path)

    def _by_value(self, raster: Raster, path: Path) -> MaskReading:
        if raster.indices is not None and raster.pixels.shape[2] == 3:
            values: npt.NDArray[Any] = raster.indices
        else:
            gray = gray_values(raster, path)
            assert gray is not None, "only palettes of colors have none"
            values = gray // raster.step
        mask = np.zeros(values.shape, np.uint8)
        for value, number in self.values.items():
            mask[values == value] = number
        rest = values[(mask == 0) & (values != 0)]
        return _reading(mask, rest[:, None], path, "--mask-class")


def parse_rule(mask_classes: Sequence[str], mask_colors: Mapping[str, str]) -> MaskRule:
    """Make a rule of what the user gives.

    Args:
        mask_classes: Names of the values 1, 2, ...; or `VALUE=CLASS`, or `STRUCTURE=CLASS`.
        mask_colors: Class of a color, such as `{"#00ff00": "lesion"}`.

    Raises:
        UsageError: A color is none, or the ways are mixed.
    """
    pairs = [text.rpartition("=") for text in mask_classes]
    keyed = {key.strip(): name.strip() for key, equals, name in pairs if equals}
    given = tuple(mask_classes) != DEFAULT_CLASSES
    if len(keyed) not in (0, len(pairs)) or (mask_colors and given):
        raise UsageError(
            f"mask classes {', '.join(mask_classes)}: expected either names, or VALUE=CLASS, or "
            "FOLDER=CLASS for each, or --mask-color instead"
        )
    if mask_colors:
        for color in mask_colors:
            if not _COLOR.fullmatch(color):
                raise UsageError(f"mask color {color!r}: expected #RRGGBB, such as #00ff00=lesion")
        names = list(dict.fromkeys(mask_colors.values()))
        return MaskRule(
            names,
            colors={
                tuple(bytes.fromhex(color[1:])): names.index(name) + 1
                for color, name in mask_colors.items()
            },
        )
    if not keyed:
        return MaskRule(list(mask_classes))
    names = list(dict.fromkeys(keyed.values()))
    numbers = {key: names.index(name) + 1 for key, name in keyed.items()}
    if all(key.isascii() and key.isdecimal() for key in keyed):
        values = {int(key): number for key, number in numbers.items()}
        if not all(0 < value < 2**16 for value in values):
            raise UsageError(
                f"mask values {', '.join(keyed)}: expected 1 to 65535; 0 is background"
            )
        return MaskRule(names, values=values)
    return MaskRule(names, structures=numbers)


def _by_color(raster: Raster, colors: Mapping[tuple[int, ...], int], path: Path) -> MaskReading:
    pixels = raster.pixels if raster.pixels.shape[2] == 3 else raster.pixels.repeat(3, axis=2)
    pixels = pixels[:, :, :3].astype(np.int32) // (1 if pixels.dtype == np.uint8 else 257)
    mask = np.zeros(pixels.shape[:2], np.uint8)
    closest = np.full(pixels.shape[:2], _COLOR_TOLERANCE + 1)
    # Black is background unless a class has it.
    for color, number in {(0, 0, 0): 0, **colors}.items():
        distance = np.abs(pixels - np.array(color)).max(axis=2)
        nearer = distance < closest
        mask[nearer], closest[nearer] = number, distance[nearer]
    return _reading(mask, pixels[closest > _COLOR_TOLERANCE], path, "--mask-color")


def _reading(mask: Mask, rest: npt.NDArray[Any], path: Path, option: str) -> MaskReading:
    """A reading, with a note on pixels (N, 1 or 3) that have no class; they are background."""
    if not rest.size:
        return MaskReading(mask)
    found, counts = np.unique(rest, axis=0, return_counts=True)
    shown = ", ".join(_shown(found[index]) for index in np.argsort(-counts)[:5])
    if not mask.any():
        raise DxsegError(f"{path}: {shown} have no class; give {option} for those that are one")
    return MaskReading(mask, f"{len(rest)} pixels of other values ({shown}) are background")


def _shown(value: npt.NDArray[Any]) -> str:
    if len(value) == 1:
        return str(int(value[0]))
    return "#" + "".join(f"{int(part):02x}" for part in value)
