"""The work list: every case of the served dataset in the order of annotation, with its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from dxseg.data.table.annotations import Annotation
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.reviews import Review

CaseState = Literal["waiting", "drawn", "confirmed", "given", "set-aside"]
STATES: tuple[str, ...] = get_args(CaseState)


@dataclass(frozen=True)
class ListedCase:
    """A case of the work list.

    Attributes:
        case_id: As in `cases.csv`.
        label: Its label there, or "".
        score: From the table of suggestions; None where the case is not in it.
        state: `waiting` without a mask; `drawn` with a mask that somebody saved here, `confirmed`
            with one that a second reader confirmed; `given` with one that came with the dataset,
            also as a label that means lesion-free; `set-aside` where nobody can tell, or the
            image should leave the dataset.
    """

    case_id: str
    label: str
    score: float | None
    state: CaseState


@dataclass(frozen=True)
class CaseFilter:
    """Which cases of the work list are meant.

    Attributes:
        state: Their state; None for any.
        label: Their label as the dataset has it; None for any.
        search: Part of the case_id, in any case; "" for any.
    """

    state: CaseState | None = None
    label: str | None = None
    search: str = ""

    def matches(self, case: ListedCase) -> bool:
        """Whether a case is meant."""
        return (
            self.state in (None, case.state)
            and self.label in (None, case.label)
            and self.search.casefold() in case.case_id.casefold()
        )


def list_cases(
    dataset: Dataset,
    suggested: dict[str, tuple[int, float | None]],
    annotations: Sequence[Annotation],
    reviews: Sequence[Review],
) -> list[ListedCase]:
    """List the cases: suggested ones by rank, then the others in table order.

    Args:
        dataset: The dataset; cases whose split is "dropped" are left out.
        suggested: Rank and score by case_id.
        annotations: Of the dataset, oldest first.
        reviews: Of the dataset, oldest first.
    """
    drawn = {one.mask for one in annotations}
    last_review = {one.case_id: one for one in reviews if one.kind != "label"}
    rows = zip(
        *(dataset.cases[name] for name in ("case_id", "label", "mask", "split")),
        dataset.lesion_free,
        strict=True,
    )
    unranked = len(suggested), None
    listed = []
    for case_id, label, mask, split, lesion_free in rows:
        if split == "dropped":
            continue
        state = _state(mask, mask in drawn, bool(lesion_free), last_review.get(case_id))
        rank, score = suggested.get(case_id, unranked)
        listed.append((rank, ListedCase(case_id, label, score, state)))
    return [case for _, case in sorted(listed, key=lambda entry: entry[0])]


def next_case(
    listed: Sequence[ListedCase], after: str, wanted: CaseFilter, taken: frozenset[str]
) -> ListedCase | None:
    """Find the case that comes after another; the list goes round.

    Args:
        listed: The whole list.
        after: The case_id that was done or skipped; "" for the first.
        wanted: Which cases are meant.
        taken: Cases that somebody else has open; passed over.

    Returns:
        The case; None if there is no other.
    """
    place = next((at + 1 for at, one in enumerate(listed) if one.case_id == after), 0)
    for case in (*listed[place:], *listed[:place]):
        if wanted.matches(case) and case.case_id != after and case.case_id not in taken:
            return case
    return None


def _state(mask: str, drawn: bool, lesion_free: bool, review: Review | None) -> CaseState:
    kind = review.kind if review is not None and review.mask == mask else ""
    if kind in ("cannot-tell", "reject"):
        return "set-aside"
    if mask and drawn:
        return "confirmed" if kind == "confirm" else "drawn"
    if mask or lesion_free:
        return "confirmed" if kind == "confirm" else "given"
    return "waiting"
