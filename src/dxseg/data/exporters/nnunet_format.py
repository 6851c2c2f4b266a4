"""The raw dataset of nnU-Net v2: folders, names of files and `dataset.json`.

Source: nnU-Net's documentation/dataset_format.md, and its integrity check, of version 2.8.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from dxseg.data.readers.images import READERS
from dxseg.data.readers.volume_files import VOLUME_FORMATS
from dxseg.errors import DxsegError

DESCRIPTION_FILE = "dataset.json"
SPLITS_FILE = "splits_final.json"
FOLDER_NAME = re.compile(r"Dataset\d{3}_[A-Za-z0-9_-]+")

_CHANNEL_FILE = re.compile(r"(.+)_(\d{4})", re.DOTALL)
_BYTE_LIMIT = 2**28
_IGNORE = "ignore"

Model = TypeVar("Model", bound=BaseModel)


class Description(BaseModel):
    """The fields of a `dataset.json` that are used.

    Attributes:
        channel_names: Name of each channel by its number as text; "modality" in older files.
        labels: Value of each class by its name, or the values of a region.
        file_ending: Suffix of images and masks, such as ".png".
        dataset: Files listed one by one instead of being in folders.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    channel_names: dict[str, str] = Field(
        min_length=1, validation_alias=AliasChoices("channel_names", "modality")
    )
    labels: dict[str, int | list[int]]
    file_ending: str = Field(pattern=r"^\.[A-Za-z0-9.]+$")
    dataset: dict[str, Any] | None = None


def read_description(source: Path) -> Description:
    """Read the `dataset.json` of a raw dataset.

    Args:
        source: Folder of the raw dataset.

    Raises:
        DxsegError: The file is absent or wrong, or lists its files one by one.
    """
    path = source / DESCRIPTION_FILE
    description = parse_json(path, Description)
    if description.dataset is not None:
        raise DxsegError(
            f"{path}: field dataset lists files one by one; expected them in imagesTr and "
            "labelsTr; move or link them there, and remove the field"
        )
    if description.file_ending not in (*READERS, *VOLUME_FORMATS):
        raise DxsegError(
            f"{path}: field file_ending, value {description.file_ending!r}: expected one of "
            f"{', '.join((*READERS, *VOLUME_FORMATS))}; convert the files"
        )
    return description


def parse_json(path: Path, model: type[Model]) -> Model:
    """Read a JSON file of another tool.

    Args:
        path: The file.
        model: Model of its content.

    Raises:
        DxsegError: The file is absent, too large, not JSON, or a field is missing or wrong.
    """
    try:
        if path.stat().st_size > _BYTE_LIMIT:
            raise DxsegError(f"{path}: larger than {_BYTE_LIMIT} bytes; expected a description")
        return model.model_validate(json.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise DxsegError(f"{path}: cannot be read ({error.strerror}); expected it there") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DxsegError(f"{path}: field {field}: {first['msg']}; correct it") from error
    except (ValueError, RecursionError) as error:
        raise DxsegError(f"{path}: not JSON ({error}); copy it again") from error


def distinct(names: Sequence[str]) -> list[str]:
    """Number the names that occur twice: nnU-Net's names of channels are rules such as `zscore`."""
    return [
        f"{name} {position}" if names.count(name) > 1 else name
        for position, name in enumerate(names)
    ]


def class_names(labels: dict[str, int | list[int]], source: Path) -> tuple[list[str], int | None]:
    """Order the names of the classes by their values.

    Args:
        labels: As in `dataset.json`; one of them is the background, 0.
        source: The file named in errors.

    Returns:
        The names of values 1, 2, ..., and the value that means "ignore", or None.

    Raises:
        DxsegError: There are regions, no background, no class, or values with gaps.
    """
    regions = [name for name, value in labels.items() if isinstance(value, list)]
    if regions:
        raise DxsegError(
            f"{source}: field labels: {', '.join(regions)} combine several values (region-based "
            "training); expected one value per class, because masks have one class per pixel; "
            "make each value a separate class"
        )
    plain = {name: value for name, value in labels.items() if isinstance(value, int)}
    ignore = plain.pop(_IGNORE, None)
    ordered = sorted(plain, key=lambda name: plain[name])
    values = [plain[name] for name in ordered]
    if len(values) < 2 or values != list(range(len(values))) or ignore not in (None, len(values)):
        raise DxsegError(
            f"{source}: field labels, value {labels}: expected background 0, classes 1, 2, ... "
            f"without gaps, and after them '{_IGNORE}' if there is one; correct it"
        )
    return ordered[1:], ignore


def find_channel_files(
    folder: Path, ending: str, skipped: list[tuple[str, str]]
) -> dict[str, list[Path]]:
    """Find the files of each case: CASE_0000, CASE_0001, ... with the file ending.

    Args:
        folder: Folder such as imagesTr; it may be absent.
        ending: Suffix such as ".png".
        skipped: List to which files of other names and cases without one of their channels are
            added.

    Returns:
        The files of each case in the order of the channels; cases in order of name.
    """
    channels: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        match = _CHANNEL_FILE.fullmatch(path.name.removesuffix(ending))
        if path.name.endswith(ending) and match:
            channels[match[1]][int(match[2])] = path
        else:
            skipped.append((str(path), f"expected a name such as CASE_0000{ending}"))
    found: dict[str, list[Path]] = {}
    for case, files in channels.items():
        if sorted(files) == list(range(len(files))):
            found[case] = [files[number] for number in range(len(files))]
        else:
            numbers = ", ".join(f"{number:04d}" for number in sorted(files))
            reason = f"case {case} has the channels {numbers}; expected 0000 and so on, no gaps"
            skipped.append((str(next(iter(files.values()))), reason))
    return found
