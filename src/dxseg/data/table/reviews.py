"""Second readings of masks, and proposals to change the table of cases.

`cases.csv` is not changed by them: who keeps the dataset decides what becomes of a proposal.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dxseg.data.table.annotations import ChangedCaseError, find_case
from dxseg.data.table.cases import split_labels
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.records import appended, check_role, inside, now, records_lock
from dxseg.errors import DxsegError, UsageError, quote

REVIEWS_FILE = "reviews.csv"
ReviewKind = Literal["confirm", "cannot-tell", "reject", "reopen", "label"]
KINDS: tuple[str, ...] = get_args(ReviewKind)


@dataclass(frozen=True)
class Review:
    """A row of `reviews.csv`.

    Attributes:
        time: UTC, ISO 8601.
        case_id: As in `cases.csv`.
        role: One of `dxseg.data.table.records.ROLES`.
        kind: One of `KINDS`: the mask is confirmed by a second reader; nobody can tell where the
            lesion is; the image should leave the dataset; a case that was set aside is back; the
            label should be another.
        mask: Path of the case's mask at that time; "" for none.
        label: The proposed label, of kind `label`.
    """

    time: str
    case_id: str
    role: str
    kind: str
    mask: str = ""
    label: str = ""


def save_review(
    root: str | Path, case_id: str, kind: str, role: str, *, mask: str = "", label: str = ""
) -> Review:
    """Record a review of a case.

    Args:
        root: Folder of the dataset.
        case_id: Id of the case.
        kind: One of `KINDS`.
        role: Role of the reader, one of `ROLES`.
        mask: The case's mask when it was opened.
        label: The proposed label, of kind `label`.

    Returns:
        The new row of `reviews.csv`.

    Raises:
        UsageError: Kind, role or label is not one of those possible, or there is no mask to
            confirm.
        UnknownCaseError: There is no such case.
        ChangedCaseError: Its mask is not `mask` (any more).
        DxsegError: The dataset cannot be read or written.
    """
    check_role(role)
    if kind not in KINDS:
        raise UsageError(f"kind {quote(kind)}: expected one of {', '.join(KINDS)}")
    folder = Path(root).resolve()
    try:
        with records_lock(folder):
            dataset = Dataset.load(folder)
            current = find_case(dataset, case_id)["mask"]
            if current != mask:
                raise ChangedCaseError(
                    f"case {quote(case_id)}: its mask is {current!r}, not {quote(mask)} as when it "
                    "was opened; open the case again"
                )
            if kind == "confirm" and not mask:
                raise UsageError(f"case {quote(case_id)}: has no mask to confirm; save one")
            if kind == "label":
                _check_label(label, dataset)
            review = Review(now(), case_id, role, kind, mask, label if kind == "label" else "")
            with appended(inside(folder, REVIEWS_FILE, "a table"), review):
                return review
    except OSError as error:
        raise DxsegError(
            f"{folder}: case {quote(case_id)}: the review cannot be saved "
            f"({error.strerror or error}); the dataset is unchanged"
        ) from error


def _check_label(label: str, dataset: Dataset) -> None:
    names = split_labels(label, dataset.spec)
    unknown = [name for name in names if name not in dataset.spec.labels]
    if unknown or not names:
        raise UsageError(f"label {quote(label)}: expected one of {', '.join(dataset.spec.labels)}")
