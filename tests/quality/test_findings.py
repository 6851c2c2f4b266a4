"""What a check says first."""

from __future__ import annotations

import pytest

from dxseg.quality.finding_types import FINDING_TYPES
from dxseg.quality.findings import CheckReport, Finding

WARNING = next(
    code for code, t in FINDING_TYPES.items() if t.severity == "warning" and code != "shortcut"
)


def report(*codes: str) -> CheckReport:
    findings = [
        Finding(code=code, count=3, case_ids=["a"], details=[f"of {code}"], **kind.model_dump())
        for code in codes
        for kind in [FINDING_TYPES[code]]
    ]
    return CheckReport.model_construct(findings=findings)


@pytest.mark.parametrize(
    ("codes", "worst"),
    [
        (("mask-layout", WARNING, "shortcut", "image-unreadable"), "image-unreadable"),
        (("mask-layout", WARNING, "shortcut"), "shortcut"),
        ((WARNING, "mask-layout"), WARNING),
        (("mask-layout",), None),
        ((), None),
    ],
)
def test_the_worst_finding_is_told_first(codes: tuple[str, ...], worst: str | None) -> None:
    found = report(*codes)
    assert (found.worst.code if found.worst else None) == worst
    if worst is None:
        assert found.verdict.startswith("Nothing was found")
        return
    kind = FINDING_TYPES[worst]
    starts = "Results would be invalid" if kind.severity == "error" else "Results may mislead"
    assert found.verdict.startswith(starts)
    assert found.verdict.endswith(f": 3 {kind.title} (of {worst}).")
