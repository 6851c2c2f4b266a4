"""The work list: every case of the served dataset in the order of annotation, with its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from dxseg.data.table.annotations import Annotation
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.reviews import Review

CaseState = Literal["waiting", "drawn", "confirmed", "given", "set-aside"]
STATES: tuple[str, ...] = get_args(CaseState)
VOLUME_STATES: tuple[CaseState, ...] = ("waiting", "drawn", "set-aside", "confirmed", "given")


@dataclass(frozen=True)
class ListedCase:
    """A case of the work list.

    Attributes:
        case_id: As in `cases.csv`; of a volume, the slice to begin with.
        label: Its label there, or "".
        label_prompt: The same where it is of the image itself; "" where it is of its study.
        score: From the table of suggestions; None where the case is not in it.
        state: `waiting` without a mask; `drawn` with a mask that somebody saved here, `confirmed`
            with one that a second reader confirmed; `given` with one that came with the dataset,
            also as a label that means lesion-free; `set-aside` where nobody can tell, or the
            image should leave the dataset. A volume has the first of `VOLUME_STATES` that one of
            its slices has.
        volume_id: Of a volume, whose slices are one entry; "" for an image.
        slices: Number of its slices.
        left: Number of its slices that wait for a mask.
    """

    case_id: str
    label: str
    score: float | None
    state: CaseState
    volume_id: str = ""
    slices: int = 1
    left: int = 0
    label_prompt: str = ""


@dataclass(frozen=True)
class CaseFilter:
    """Which cases of the work list are meant.

    Attributes:
        state: Their state; None for any.
        label: Their label as the dataset has it; None for any.
        search: Part of the case_id or volume_id, in any case; "" for any.
    """

    state: CaseState | None = None
    label: str | None = None
    search: str = ""

    def matches(self, case: ListedCase) -> bool:
        """Whether a case is meant."""
        return (
            self.state in (None, case.state)
            and self.label in (None, case.label)
            and self.search.casefold() in f"{case.volume_id}\n{case.case_id}".casefold()
        )


def list_cases(
    dataset: Dataset,
    suggested: dict[str, tuple[int, float | None]],
    annotations: Sequence[Annotation],
    reviews: Sequence[Review],
) -> list[ListedCase]:
    """List the cases, each slice of a volume too: suggested by rank, then in table order.

    Args:
        dataset: The dataset; cases whose split is "dropped" are left out.
        suggested: Rank and score by case_id.
        annotations: Of the dataset, oldest first.
        reviews: Of the dataset, oldest first.
    """
    drawn = {one.mask for one in annotations}
    last_review = {one.case_id: one for one in reviews if one.kind != "label"}
    names = ("case_id", "label", "mask", "split", "volume_id")
    columns = (dataset.cases[name] for name in names)
    rows = zip(*columns, dataset.lesion_free, dataset.image_labels, strict=True)
    listed = []
    for case_id, label, mask, split, volume_id, lesion_free, own in rows:
        if split == "dropped":
            continue
        state = _state(mask, mask in drawn, bool(lesion_free), last_review.get(case_id))
        _, score = suggested.get(case_id, (0, None))
        waits = int(state == "waiting")
        listed.append(ListedCase(case_id, label, score, state, volume_id, 1, waits, own))
    return sorted(listed, key=lambda case: suggested.get(case.case_id, (len(suggested),))[0])


def join_slices(listed: Sequence[ListedCase], in_order: Mapping[str, int]) -> list[ListedCase]:
    """Make one entry of the slices of each volume, where its first one stands.

    Args:
        listed: From `list_cases`.
        in_order: By case_id, the number of a slice in its volume.
    """
    volumes: dict[str, list[ListedCase]] = {}
    for case in listed:
        # No volume_id holds a line break.
        volumes.setdefault(case.volume_id or f"\n{case.case_id}", []).append(case)
    return [_entry(slices, in_order) for slices in volumes.values()]


def _entry(slices: Sequence[ListedCase], in_order: Mapping[str, int]) -> ListedCase:
    first = slices[0]
    if not first.volume_id:
        return first
    if first.score is None:  # nobody suggests one: the ends of a volume show little
        first = sorted(slices, key=lambda case: in_order[case.case_id])[len(slices) // 2]
    states = {case.state for case in slices}
    return replace(
        first,
        label=first.label if len({case.label for case in slices}) == 1 else "",
        state=next(state for state in VOLUME_STATES if state in states),
        slices=len(slices),
        left=sum(case.left for case in slices),
    )


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
