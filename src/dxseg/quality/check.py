"""`dxseg check`: look at every file of a dataset, compare, probe, report."""

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
from dxseg.io.progress import reporting
from dxseg.io.sqlite_cache import SqliteCache
from dxseg.quality.cross_case_checks import (
    duplicate_findings,
    near_duplicates,
    rare_labels,
    split_findings,
)
from dxseg.quality.file_checks import file_findings
from dxseg.quality.findings import CheckReport, Probe
from dxseg.quality.fingerprint import fingerprint
from dxseg.quality.page import write_page
from dxseg.quality.probes import run_probes
from dxseg.quality.repair import check_fix_destination, write_repaired
from dxseg.quality.row_findings import RowFinding, tell
from dxseg.quality.scan import Survey, survey

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
    """Examine a dataset and write `check.json` and `check.html`.

    What is found out about a file is kept in `cache.sqlite` in the output folder: a check that is
    interrupted goes on, and a second one reads only what has changed.

    Args:
        path: Folder of the dataset.
        splits: A splits.csv to check; by default the column split of cases.csv where it is filled.
        output: Folder for the report; by default `check` in the dataset's.
        fix: Folder for a repaired copy of the dataset, new or empty; the dataset itself is never
            changed.
        workers: Processes; by default one for each core.
        console: Where progress is drawn.

    Returns:
        What `check.json` holds.

    Raises:
        DxsegError: The dataset's two files, or splits, cannot be read, or the folder for the copy
            holds something else.
    """
    dataset = Dataset.load(path)
    count_workers(workers)
    side = _split_of(dataset, splits)
    if fix is not None:
        check_fix_destination(dataset, Path(fix))
    folder = dataset.root / "check" if output is None else Path(output)
    console = console or Console(stderr=True)
    with SqliteCache(folder / CACHE_FILE) as store:
        with reporting(console, "Looking at files") as progress:
            found = survey(dataset, store, workers=workers, progress=progress)
        with reporting(console, "Looking for near-duplicates") as progress:
            near = near_duplicates(found, progress=progress)
        together = link_groups(dataset.cases, near)
        with reporting(console, "Probing for shortcuts") as progress:
            probes = run_probes(found, together, progress=progress)
    raised = [
        *file_findings(found),
        *duplicate_findings(found, near),
        *([] if side is None else split_findings(found, near, side)),
        *rare_labels(found, together),
        *_shortcuts(found, probes),
    ]
    repair = None
    if fix is not None:
        with reporting(console, "Writing the repaired copy") as progress:
            repair = write_repaired(found, near, raised, Path(fix), progress=progress)
    findings = tell(raised, dataset.cases["case_id"])
    counts = Counter(finding.severity for finding in findings)
    report = CheckReport(
        name=dataset.spec.name,
        digest=dataset.digest(),
        splits_sha256="" if splits is None else sha256_file(splits),
        cases=len(dataset),
        severities={severity: counts[severity] for severity in ("error", "warning", "info")},
        findings=findings,
        probes=probes,
        statistics=fingerprint(found),
        repair=repair,
    )
    write_text_atomic(folder / REPORT_FILE, report.model_dump_json(indent=2) + "\n")
    write_page(report, dataset, folder / PAGE_FILE)
    return report


def _split_of(dataset: Dataset, splits: str | Path | None) -> pd.Series[str] | None:
    if splits is not None:
        return parse_splits(splits, dataset)["split"]
    own = dataset.cases["split"]
    return own if own.ne("").all() else None


def _shortcuts(found: Survey, probes: Sequence[Probe]) -> list[RowFinding]:
    told: list[str] = []
    for probe in probes:
        areas = probe.labels if probe.mean is None else {"mean": probe.mean, **probe.labels}
        told.extend(f"{probe.name}: AUROC of {key} {areas[key]}" for key in probe.warned)
    labelled: NDArray[np.int64] = np.flatnonzero(found.dataset.cases["label"].ne(""))
    return [RowFinding("shortcut", labelled, details=told)] if told else []
