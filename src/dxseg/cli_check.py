"""The verb `dxseg check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from dxseg.commands.terminal import err, out, value_table
from dxseg.errors import DxsegError


def check_command(
    dataset: Annotated[Path, typer.Argument(help="Folder with dataset.yaml and cases.csv.")],
    splits: Annotated[
        Path | None, typer.Option(help="A splits.csv to check; else the column split, if filled.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="Folder for the report; DATASET/check if absent.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(help="Folder for a repaired copy; the source stays as it is.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one a core if absent.")] = None,
) -> None:
    """Examine a dataset: files, masks, duplicates, patients, shortcuts."""
    from dxseg import api
    from dxseg.quality.page import describe_statistics

    report = api.check(dataset, splits=splits, output=output, fix=fix, workers=workers, console=err)
    out.print(value_table(dict(describe_statistics(report.statistics)), report.name))
    out.print(_findings_table(report))
    out.print(_probes_table(report))
    for finding in report.findings:
        if finding.severity != "info":
            out.print(f"{finding.severity} {finding.code}: {finding.remedy}", soft_wrap=True)
            for detail in finding.details:
                out.print(f"  {detail}", soft_wrap=True)
    if report.repair is not None:
        _print_repair(report.repair)
    folder = dataset / "check" if output is None else output
    out.print(f"Report: {folder / 'check.html'}", soft_wrap=True)
    if not report.valid:
        raise typer.Exit(DxsegError.exit_code)


def _findings_table(report: Any) -> Table:
    table = Table("severity", "code", "cases", "groups", "what", title="Findings")
    for one in report.findings:
        groups = str(one.group_count) if one.group_count else ""
        table.add_row(one.severity, one.code, str(one.count), groups, one.title)
    return table


def _probes_table(report: Any) -> Table:
    table = Table("seen", "label", "AUROC (95% interval)", "", title="Shortcut probes")
    for probe in report.probes:
        if probe.mean is None:
            table.add_row(probe.name, "", "too few groups of each label")
            continue
        areas = {"mean": probe.mean, **(probe.labels if len(probe.labels) > 1 else {})}
        for key, area in areas.items():
            seen = probe.name if key == "mean" else ""
            table.add_row(seen, key, str(area), "high" if key in probe.warned else "")
    return table


def _print_repair(repair: Any) -> None:
    out.print(f"Repaired copy: {repair.destination}, {repair.cases} cases", soft_wrap=True)
    for action in repair.actions:
        named = ", ".join(action.case_ids[:5]) + (", ..." if action.count > 5 else "")
        out.print(f"- {action.action} {action.count}: {action.reason} ({named})", soft_wrap=True)
    if repair.remaining:
        out.print(f"- not fixed: {', '.join(repair.remaining)}", soft_wrap=True)
