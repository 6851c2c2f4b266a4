"""The verdict of a report: whether its figures can be trusted, in words that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dxseg.evaluation.compare import ENOUGH_SEEDS

ENOUGH_GROUPS = 30
"""Patients or groups with a lesion; with fewer, intervals are too wide to decide by."""


@dataclass(frozen=True)
class Difference:
    """A figure of this run's method minus that of another method.

    Attributes:
        method: The other method.
        title: Name of the figure.
        better: `higher` or `lower`.
        value: The difference.
        low: Lower end of its interval.
        high: Upper end.
    """

    method: str
    title: str
    better: str
    value: float
    low: float
    high: float

    @property
    def figures(self) -> str:
        """The difference and its interval."""
        value, low, high = map(_signed, (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"

    @property
    def words(self) -> str:
        """What the interval says: `better`, `worse` or `no difference shown`."""
        sign = 1 if self.low > 0 else -1 if self.high < 0 else 0
        if sign == 0:
            return "no difference shown"
        return "better" if (sign > 0) == (self.better == "higher") else "worse"


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on.

    Attributes:
        train_masks: Masks used in training; None if not recorded.
        validation_masks: Masks used in validation; None if not recorded.
        lesion_images: Test images with a lesion that have a mask.
        lesion_free_images: Test images without a lesion.
        lesion_groups: Patients or groups of the test images with a lesion.
        seeds: Trainings of the method with different seeds.
        differences: From each other method, in each figure.
    """

    train_masks: int | None
    validation_masks: int | None
    lesion_images: int
    lesion_free_images: int
    lesion_groups: int
    seeds: int
    differences: Sequence[Difference] = ()


def headline(evidence: Evidence) -> str:
    """The verdict in one sentence; the weakest point decides."""
    if evidence.lesion_images == 0:
        return "No test image has a lesion with a mask: nothing can be said about outlines."
    if evidence.lesion_groups < ENOUGH_GROUPS:
        return "Too few test lesions to conclude anything."
    if not evidence.differences:
        return "No control: without a baseline, the value of the method is unknown."
    if evidence.seeds < ENOUGH_SEEDS:
        return "A first result, not a conclusion: too few training runs."
    return "Enough tests and trainings for a conclusion about images like these."


def sentences(evidence: Evidence) -> list[str]:
    """What supports the verdict and what weakens it, one point each."""
    points = [_masks(evidence), _tests(evidence), _trainings(evidence.seeds)]
    methods = dict.fromkeys(difference.method for difference in evidence.differences)
    points += [_against(method, evidence.differences) for method in methods]
    if not methods:
        points.append(
            "No other method was evaluated on the same images. Train one, such as unet, which "
            "learns from the masks alone, and add it to the report (--with)."
        )
    return [point for point in points if point]


def _masks(evidence: Evidence) -> str:
    if evidence.train_masks is None:
        return ""
    text = f"Trained with {_count(evidence.train_masks, 'mask')}."
    if evidence.validation_masks is not None:
        text += f" {_count(evidence.validation_masks, 'more mask')} for choosing thresholds."
    return text


def _tests(evidence: Evidence) -> str:
    text = (
        f"Tested on {_count(evidence.lesion_images, 'image')} with a lesion, of "
        f"{_count(evidence.lesion_groups, 'patient or group', 'patients or groups')}, and on "
        f"{evidence.lesion_free_images} without."
    )
    if evidence.lesion_groups < ENOUGH_GROUPS:
        return f"{text} At least {ENOUGH_GROUPS} patients or groups with a lesion are needed."
    return f"{text} That is enough for an estimate; the interval shows how precise it is."


def _trainings(seeds: int) -> str:
    if seeds >= ENOUGH_SEEDS:
        return f"{seeds} trainings with different seeds."
    return (
        f"{_count(seeds, 'training')}: other masks or another start may give other figures. "
        f"At least {ENOUGH_SEEDS} seeds are needed."
    )


def _against(method: str, differences: Sequence[Difference]) -> str:
    own = [difference for difference in differences if difference.method == method]
    parts = [f"Against {method}."]
    for words in ("better", "worse", "no difference shown"):
        # The names of figures have commas.
        titles = "; ".join(difference.title for difference in own if difference.words == words)
        parts.append(f"{words.capitalize()}: {titles or 'none'}.")
    return " ".join(parts)


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _signed(value: float) -> str:
    # Adding zero turns a rounded -0.0 into 0.0.
    return f"{round(value, 3) + 0.0:+.3f}"
