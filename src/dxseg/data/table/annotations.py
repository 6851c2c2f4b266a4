"""Saving masks that people drew: a file, a row of the table, and a record of role and time.

The record holds roles, never names. Mask files are not changed or removed once written, so the
record lists every mask that a case ever had.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dxseg.data.readers.images import image_size
from dxseg.data.readers.masks import Mask, write_mask
from dxseg.data.table.cases import CASES_FILE
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.records import appended, check_role, inside, records_lock
from dxseg.errors import DxsegError, quote
from dxseg.io.atomic import sha256_file

ANNOTATIONS_FILE = "annotations.csv"
MASKS = "masks"
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{12}\.png|\.(annotations|reviews)\.[0-9a-f]{12}\.csv")
"""Names of unfinished files, as `atomic_path` makes them."""


class UnknownCaseError(DxsegError):
    """The dataset has no case of this id."""


class ChangedCaseError(DxsegError):
    """The mask of the case has changed since it was opened."""


@dataclass(frozen=True)
class Annotation:
    """A row of `annotations.csv`: mask, role of the annotator, and time.

    Attributes:
        time: UTC, ISO 8601.
        case_id: As in `cases.csv`.
        role: One of `ROLES`.
        mask: Path of the mask in the dataset.
        mask_sha256: SHA-256 of that file.
        previous: Path of the mask that it replaces; "" if there was none.
        model: First digits of the SHA-256 of the weights whose prediction was corrected, or "".
        known: Label prompt of that prediction, or "".
    """

    time: str
    case_id: str
    role: str
    mask: str
    mask_sha256: str
    previous: str
    model: str = ""
    known: str = ""


def save_mask(
    root: str | Path,
    case_id: str,
    mask: Mask,
    role: str,
    *,
    previous: str = "",
    model: str = "",
    known: str = "",
) -> Annotation:
    """Save a mask of a case in a dataset.

    Several threads and programs may do so at once: one waits for the other. On any failure the
    dataset stays as it was. `cases.csv` is written last: a row of `annotations.csv` whose mask is
    not in `cases.csv`, and which no later row replaces, comes from a program that was killed.

    Args:
        root: Folder of the dataset.
        case_id: Id of the case.
        mask: (H, W) label map of the size of the image; 0 is background, 1, 2, ... the classes.
        role: Role of the annotator, one of `ROLES`.
        previous: The case's mask in `cases.csv` when it was opened; "" for none.
        model: First digits of the SHA-256 of the weights whose prediction was corrected.
        known: Label prompt of that prediction.

    Returns:
        The new row of `annotations.csv`.

    Raises:
        UsageError: The role is not one of `ROLES`.
        UnknownCaseError: There is no such case.
        ChangedCaseError: Its mask is not `previous` (any more).
        DxsegError: The mask has another size, an unknown class, or a lesion where the label means
            lesion-free; or the dataset cannot be read or written.
    """
    check_role(role)
    folder = Path(root).resolve()
    try:
        with records_lock(folder):
            dataset = Dataset.load(folder)
            row = find_case(dataset, case_id)
            _check(dataset, row, mask, previous)
            return _save(dataset, row, mask, role, model=model, known=known)
    except OSError as error:
        # The text of the error has the path, not the case.
        raise DxsegError(
            f"{folder}: case {case_id!r}: the mask cannot be saved ({error.strerror or error}); "
            "the dataset is unchanged"
        ) from error


def remove_leftovers(root: Path) -> int:
    """Remove the unfinished files of killed saves.

    Finished masks stay, also those that a killed save did not record: somebody drew them.

    Args:
        root: Folder of the dataset.

    Returns:
        How many files were removed.
    """
    with records_lock(root):
        found = [
            path
            for folder in (root, root / MASKS)
            if folder.is_dir()
            for path in folder.iterdir()
            if _TEMPORARY.fullmatch(path.name)
        ]
        for path in found:
            path.unlink(missing_ok=True)
    return len(found)


def find_case(dataset: Dataset, case_id: str) -> Any:
    """Find the row of a case.

    Args:
        dataset: The dataset.
        case_id: Id of the case.

    Raises:
        UnknownCaseError: There is no such case.
    """
    try:
        found = dataset.cases[dataset.cases["case_id"].eq(case_id)]
    except UnicodeEncodeError:  # half of a surrogate pair, which no table can hold
        found = dataset.cases.head(0)
    if found.empty:
        raise UnknownCaseError(
            f"{dataset.root / CASES_FILE}: no case {quote(case_id)}; expected a case_id of the "
            "table"
        )
    return found.iloc[0]


def _check(dataset: Dataset, row: Any, mask: Mask, previous: str) -> None:
    where = f"{dataset.root / CASES_FILE}: case {row['case_id']!r}"
    if row["mask"] != previous:
        raise ChangedCaseError(
            f"{where}: its mask is {row['mask']!r}, not {quote(previous)} as when it was opened; "
            "open the case again"
        )
    size, classes = image_size(dataset.image_path(row)), dataset.spec.mask_classes
    if mask.shape != size:
        raise DxsegError(f"{where}: a mask of {mask.shape}; expected the image's size {size}")
    if mask.max() > len(classes):
        raise DxsegError(
            f"{where}: a mask with the value {mask.max()}; expected 0 to {len(classes)} "
            f"({', '.join(classes)})"
        )
    if mask.any() and dataset.lesion_free[row.name]:
        raise DxsegError(
            f"{where}: the mask shows a lesion, but the label {row['label']!r} means lesion-free; "
            "correct the label in the table first, or leave the mask empty"
        )


def _save(
    dataset: Dataset, row: Any, mask: Mask, role: str, *, model: str, known: str
) -> Annotation:
    case_id, root = row["case_id"], dataset.root
    inside(root, MASKS, "a folder")
    now = datetime.now(UTC)
    name = _mask_name(case_id, mask, now)
    log = inside(root, ANNOTATIONS_FILE, "a table")
    try:
        write_mask(root / name, mask, len(dataset.spec.mask_classes))
        done = Annotation(
            time=now.isoformat(timespec="seconds"),
            case_id=case_id,
            role=role,
            mask=name,
            mask_sha256=sha256_file(root / name),
            previous=row["mask"],
            model=model,
            known=known,
        )
        with appended(log, done):
            cases = dataset.cases.copy()
            cases.loc[row.name, "mask"] = name
            Dataset(root, dataset.spec, cases).save_cases()
    except BaseException:
        (root / name).unlink(missing_ok=True)
        raise
    return done


def _mask_name(case_id: str, mask: Mask, now: datetime) -> str:
    """Make a unique name that is readable and valid on any file system."""
    digest = hashlib.sha256(f"{case_id}\0{now.isoformat()}\0".encode() + mask.tobytes())
    return f"{MASKS}/{re.sub(r'[^A-Za-z0-9_-]', '_', case_id)[:80]}-{digest.hexdigest()[:12]}.png"
