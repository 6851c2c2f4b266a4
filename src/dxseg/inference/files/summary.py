"""What a call of `dxseg predict` did, whichever engine ran it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PredictSummary:
    """What a call of `predict_files` or `predict_archive` did.

    Attributes:
        done: Images and volumes predicted.
        skipped: Those that the table already held.
        failed: Name and reason of each one without a result.
        known: How many of all have a known label.
        unmatched_labels: Places in the table of labels that speak of none of them.
    """

    done: int = 0
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    known: int = 0
    unmatched_labels: list[str] = field(default_factory=list)
