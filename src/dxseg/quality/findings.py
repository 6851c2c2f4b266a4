"""Findings and the report of a check."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dxseg.quality.finding_types import Severity
from dxseg.quality.fingerprint import Statistics

ActionName = Literal["drop", "remove-mask", "rewrite-mask", "merge", "group", "empty-split"]
"""What `--fix` does with cases."""

LISTED = 1000
"""Maximum number of case ids of a finding in the report; `count` counts all."""


class Finding(BaseModel):
    """Cases with the same problem.

    Attributes:
        code: One of `dxseg.quality.finding_types.FINDING_TYPES`.
        severity: Severity of the type.
        title: Title of the type.
        count: Number of cases.
        group_count: Number of groups that the cases form; 0 for none.
        case_ids: The first `LISTED` of them, in the order of the table.
        groups: The first groups of case ids, `LISTED` ids at most.
        details: Up to five examples as text.
        remedy: What to do.
    """

    code: str
    severity: Severity
    title: str
    count: int
    group_count: int = 0
    case_ids: list[str]
    groups: list[list[str]] = []
    details: list[str] = []
    remedy: str


class Auroc(BaseModel):
    """Area under the ROC curve, from cross-validation.

    Attributes:
        auroc: 0.5 is chance.
        low: Lower end of its 95% interval over groups.
        high: Upper end.
    """

    auroc: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.auroc:.2f} ({self.low:.2f} to {self.high:.2f})"


class Probe(BaseModel):
    """How well something unrelated to the lesion predicts the label.

    Attributes:
        name: image-size, border or thumbnail.
        mean: Mean over the labels; null with too few groups.
        labels: Each label against the rest.
        cases: Number of cases used.
        group_count: Number of their groups.
        warned: The labels, or "mean", whose AUROC is high enough for the finding `shortcut`.
    """

    name: str
    mean: Auroc | None
    labels: dict[str, Auroc]
    cases: int
    group_count: int
    warned: list[str]


class Action(BaseModel):
    """An action of `--fix`.

    Attributes:
        action: What was done.
        count: Number of cases.
        case_ids: The first `LISTED` of them.
        reason: The reason as text.
    """

    action: ActionName
    count: int
    case_ids: list[str]
    reason: str


class Repair(BaseModel):
    """The repaired copy.

    Attributes:
        destination: Its folder.
        cases: Rows of its table.
        actions: What was done.
        remaining: Codes of findings that cannot be fixed automatically.
    """

    destination: Path
    cases: int
    actions: list[Action]
    remaining: list[str]

    def lines(self) -> list[str]:
        """What was done, in lines of text."""
        lines = [f"Repaired copy: {self.destination}, {self.cases} cases"]
        for action in self.actions:
            cases = ", ".join(action.case_ids[:5]) + (", ..." if action.count > 5 else "")
            lines.append(f"- {action.action} {action.count}: {action.reason} ({cases})")
        if self.remaining:
            lines.append(f"- not fixed: {', '.join(self.remaining)}")
        return lines


class CheckReport(BaseModel):
    """The content of `check.json`.

    Attributes:
        name: The dataset's name.
        digest: The dataset's digest when it was checked.
        splits_sha256: Digest of the splits that were checked; "" if there were none, or if they
            are in cases.csv.
        cases: Rows of the table.
        severities: Number of findings of each severity.
        findings: The findings, errors first.
        probes: The shortcut probes.
        statistics: The fingerprint.
        repair: The repaired copy; null without `--fix`.
        page: The report as a page; not in `check.json`.
    """

    name: str
    digest: str
    splits_sha256: str
    cases: int
    severities: dict[Severity, int]
    findings: list[Finding]
    probes: list[Probe]
    statistics: Statistics
    repair: Repair | None = None
    page: Path | None = Field(default=None, exclude=True)

    @property
    def valid(self) -> bool:
        """Whether no finding is an error."""
        return self.severities["error"] == 0

    @property
    def worst(self) -> Finding | None:
        """The finding to look at first: an error, else a shortcut, else any warning."""
        serious = [one for one in self.findings if one.severity != "info"]
        return min(
            serious,
            key=lambda one: (one.severity != "error", one.code != "shortcut"),
            default=None,
        )

    @property
    def verdict(self) -> str:
        """What the worst finding means, in one sentence."""
        worst = self.worst
        if worst is None:
            return "Nothing was found that makes results invalid or misleading."
        consequence = (
            "Results would be invalid, or training would stop"
            if worst.severity == "error"
            else "Results may mislead"
        )
        details = f" ({worst.details[0]})" if worst.details else ""
        return f"{consequence}: {worst.count} {worst.title}{details}."

    @property
    def failed(self) -> list[tuple[str, str]]:
        """Code and title of each finding that is an error."""
        return [(one.code, one.title) for one in self.findings if one.severity == "error"]

    def __rich__(self) -> Group:
        facts = Table("", "", title=self.name, show_header=False)
        for name, value in self.statistics.rows():
            facts.add_row(name, value)
        return Group(facts, self._findings(), self._probes(), Text("\n".join(self._lines())))

    def _findings(self) -> Table:
        table = Table("severity", "code", "cases", "groups", "what", title="Findings")
        for one in self.findings:
            groups = str(one.group_count) if one.group_count else ""
            table.add_row(one.severity, one.code, str(one.count), groups, one.title)
        return table

    def _probes(self) -> Table:
        table = Table("seen", "label", "AUROC (95% interval)", "", title="Shortcut probes")
        for probe in self.probes:
            if probe.mean is None:
                table.add_row(probe.name, "", "too few groups of each label")
                continue
            areas = {"mean": probe.mean, **(probe.labels if len(probe.labels) > 1 else {})}
            for key, area in areas.items():
                seen = probe.name if key == "mean" else ""
                table.add_row(seen, key, str(area), "high" if key in probe.warned else "")
        return table

    def _lines(self) -> list[str]:
        lines = []
        for finding in self.findings:
            if finding.severity != "info":
                lines.append(f"{finding.severity} {finding.code}: {finding.remedy}")
                lines.extend(f"  {detail}" for detail in finding.details)
        if self.repair is not None:
            lines.extend(self.repair.lines())
        return [*lines, self.verdict, f"Report: {self.page}"]
