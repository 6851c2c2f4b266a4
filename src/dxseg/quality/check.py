"""`dxseg check`: read every file of a dataset, compare the images, run the probes, report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from dxseg.data.splits.groups import link_groups
from dxseg.data.splits.split_table import parse_splits
from dxseg.data.table.dataset import Dataset
from dxseg.io.atomic import sha256_file, write_text_atomic
from dxseg.io.parallel import count_workers
from dxseg.io.progress import console as standard_error
from dxseg.io.progress import reporting
from dxseg.io.sqlite_cache import SqliteCache
from dxseg.quality.cross_case_checks import (
    duplicate_findings,
    group_near_duplicates,
    rare_label_findings,
    split_findings,
)
from dxseg.quality.file_checks import file_findings
from dxseg.quality.findings import CheckReport, Probe
from dxseg.quality.fingerprint import fingerprint
from dxseg.quality.page import write_page
from dxseg.quality.probes import run_probes
from dxseg.quality.repair import prepare_destination, write_repaired
from dxseg.quality.row_findings import RowFinding, to_findings
from dxseg.quality.scan import Scan, scan_dataset

REPORT_FILE, PAGE_FILE, CACHE_FILE = "check.json", "check.html", "cache.sqlite"


def check_dataset(
    path: str | Path,
    *,
    splits: str | Path | None = None,
    output: str | Path | None = None,
    fix: str | Path | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> CheckReport:
    """Check a dataset and write `check.json` and `check.html`.

    Results per file are cached in `cache.sqlite` in the output folder: an interrupted check
    continues, and a second one reads only files that have changed.

    Args:
        path: Folder of the dataset.
        splits: A splits.csv to check; default: the column split of cases.csv where it is filled.
        output: Folder for the report; default: `check` in the dataset's folder.
        fix: Folder for a repaired copy of the dataset, new or empty; the dataset itself is never
            changed.
        workers: Number of processes; default: one per core.
        console: Where progress is shown; default: standard error.

    Returns:
        The content of `check.json`.

    Raises:
        DxsegError: The dataset's two files, or splits, cannot be read, or the folder for the copy
            is in use for something else.
    """
    dataset = Dataset.load(path)
    count_workers(workers)
    split = _select_split(dataset, splits)
    if fix is not None:
        prepare_destination(dataset, Path(fix))
    folder = dataset.root / "check" if output is None else Path(output)
    console = console or standard_error
    with SqliteCache(folder / CACHE_FILE) as store:
        with reporting(console, "Reading files") as progress:
            scan = scan_dataset(dataset, store, workers=workers, progress=progress)
        with reporting(console, "Looking for near-duplicates") as progress:
            near = group_near_duplicates(scan, progress=progress)
        groups = link_groups(dataset.cases, near)
        with reporting(console, "Probing for shortcuts") as progress:
            probes = run_probes(scan, groups, progress=progress)
    row_findings = [
        *file_findings(scan),
        *duplicate_findings(scan, near),
        *([] if split is None else split_findings(scan, near, split)),
        *rare_label_findings(scan, groups),
        *_shortcut_findings(scan, probes),
    ]
    repair = None
    if fix is not None:
        with reporting(console, "Writing the repaired copy") as progress:
            repair = write_repaired(scan, near, row_findings, Path(fix), progress=progress)
    findings = to_findings(row_findings, dataset.cases["case_id"])
    counts = Counter(finding.severity for finding in findings)
    report = CheckReport(
        name=dataset.spec.name,
        digest=dataset.digest(),
        splits_sha256="" if splits is None else sha256_file(splits),
        cases=len(dataset),
        severities={severity: counts[severity] for severity in ("error", "warning", "info")},
        findings=findings,
        probes=probes,
        statistics=fingerprint(scan),
        repair=repair,
        page=folder / PAGE_FILE,
    )
    write_text_atomic(folder / REPORT_FILE, report.model_dump_json(indent=2) + "\n")
    write_page(report, dataset, folder / PAGE_FILE)
    return report


def _select_split(dataset: Dataset, splits: str | Path | None) -> pd.Series[str] | None:
    if splits is not None:
        return parse_splits(splits, dataset)["split"]
    column = dataset.cases["split"]
    return column if column.ne("").all() else None


def _shortcut_findings(scan: Scan, probes: Sequence[Probe]) -> list[RowFinding]:
    details: list[str] = []
    for probe in probes:
        aurocs = probe.labels if probe.mean is None else {"mean": probe.mean, **probe.labels}
        details.extend(f"{probe.name}: AUROC of {key} {aurocs[key]}" for key in probe.warned)
    labeled: NDArray[np.int64] = np.flatnonzero(scan.dataset.cases["label"].ne(""))
    return [RowFinding("shortcut", labeled, details=details)] if details else []
