"""Commands for datasets: check, split, info."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dxseg.commands.options import (
    BudgetUnit,
    InputSpacing,
    LabelUnit,
    MaskBudget,
    OutputPath,
    StrPath,
)
from dxseg.commands.results import Facts, SplitTable
from dxseg.errors import UsageError

if TYPE_CHECKING:
    from dxseg.quality.findings import CheckReport
else:
    CheckReport = Any


def check(
    dataset: StrPath,
    *,
    output: OutputPath | None = None,
    splits: StrPath | None = None,
    fix: StrPath | None = None,
    image_size: int | None = None,
    spacing: InputSpacing | None = None,
    workers: int | None = None,
) -> CheckReport:
    """Check a dataset: files, masks, duplicates, patients, shortcuts.

    Writes `check.json` and `check.html`. What is found in a file is cached: an interrupted check
    continues, and another one reads only the files that have changed. The exit code is 1 if a
    finding makes results invalid.

    Args:
        dataset: Folder with `dataset.yaml` and `cases.csv`.
        output: Folder for the report; default: `check` in the dataset's folder.
        splits: A `splits.csv` to check; default: the column `split` of `cases.csv`, if filled.
        fix: Folder for a repaired copy, new or empty; the dataset itself is never changed.
        image_size: Input size at which lesions must keep their detail, as `data.image_size`;
            default: 128, that of the default preset.
        spacing: Height and width of a pixel that images are brought to first, in mm, or `auto`, as
            `data.spacing`; default: as `image_size` makes it.
        workers: Worker processes; default: number of cores.

    Returns:
        The content of `check.json`; `valid` is False if a finding is an error.

    Raises:
        UsageError: `image_size` or `spacing` is out of range.
        DxsegError: `dataset.yaml`, `cases.csv` or the splits cannot be read, or `fix` is not empty.
    """
    from collections import Counter

    from dxseg.config.presets import load_config
    from dxseg.data.splits.groups import link_groups
    from dxseg.data.splits.split_table import parse_splits
    from dxseg.data.table.dataset import Dataset
    from dxseg.io.atomic import sha256_file, write_text_atomic
    from dxseg.io.parallel import count_workers
    from dxseg.io.progress import console, reporting
    from dxseg.io.sqlite_cache import SqliteCache
    from dxseg.quality import cross_case_checks as cross_case
    from dxseg.quality.file_checks import file_findings
    from dxseg.quality.findings import CheckReport
    from dxseg.quality.fingerprint import fingerprint
    from dxseg.quality.page import write_page
    from dxseg.quality.probes import run_probes, shortcut_findings
    from dxseg.quality.repair import prepare_destination, write_repaired
    from dxseg.quality.row_findings import to_findings
    from dxseg.quality.scan import scan_dataset
    from dxseg.training.datamodule.spacing import target_spacing

    options = {"image_size": image_size, "spacing": spacing}
    given = {key: value for key, value in options.items() if value is not None}
    size = load_config(overrides={"data": given}).data
    data = Dataset.load(dataset)
    target = target_spacing(data, size.spacing)
    count_workers(workers)
    split = data.cases["split"] if splits is None else parse_splits(splits, data)["split"]
    if fix is not None:
        prepare_destination(data, Path(fix))
    folder = data.root / "check" if output is None else Path(output)
    with SqliteCache(folder / "cache.sqlite") as store:
        with reporting(console, "Reading files") as progress:
            scan = scan_dataset(
                data,
                store,
                image_size=size.image_size,
                spacing=target,
                workers=workers,
                progress=progress,
            )
        with reporting(console, "Looking for near-duplicates") as progress:
            near = cross_case.group_near_duplicates(scan, progress=progress)
        groups = link_groups(data.cases, near)
        with reporting(console, "Probing for shortcuts") as progress:
            probes = run_probes(scan, groups, progress=progress)
    found = [
        *file_findings(scan),
        *cross_case.duplicate_findings(scan, near),
        *(cross_case.split_findings(scan, near, split) if split.ne("").all() else []),
        *cross_case.rare_label_findings(scan, groups),
        *shortcut_findings(scan, probes),
    ]
    repair = None
    if fix is not None:
        with reporting(console, "Writing the repaired copy") as progress:
            repair = write_repaired(scan, near, found, Path(fix), progress=progress)
    findings = to_findings(found, data.cases["case_id"])
    counts = Counter(finding.severity for finding in findings)
    report = CheckReport(
        name=data.spec.name,
        digest=data.digest(),
        splits_sha256="" if splits is None else sha256_file(splits),
        cases=len(data),
        severities={severity: counts[severity] for severity in ("error", "warning", "info")},
        findings=findings,
        probes=probes,
        statistics=fingerprint(scan),
        repair=repair,
        page=folder / "check.html",
    )
    write_text_atomic(folder / "check.json", report.model_dump_json(indent=2) + "\n")
    write_page(report, data, folder / "check.html")
    return report


def split(
    dataset: StrPath,
    *,
    output: OutputPath,
    masks: MaskBudget | None = None,
    budget_unit: BudgetUnit | None = None,
    label_unit: LabelUnit | None = None,
    validation_masks: int | None = None,
    fractions: Annotated[tuple[float, float, float], Parameter(metavar="NUMBER")] = (0.7, 0.1, 0.2),
    folds: int = 5,
    fold: int | None = None,
    split_seed: int = 0,
    seed: int = 0,
) -> SplitTable:
    """Split a dataset by patient, or where none is named by volume or near-duplicate images.

    A note warns where patients are missing or derived from names.

    Args:
        dataset: Folder with `dataset.yaml` and `cases.csv`.
        output: The `splits.csv` to write.
        masks: Training masks to use: a count (35) or a fraction (0.1); default: all.
        budget_unit: What budgets count: volumes, with the masks of all their slices, or slices;
            default: volumes where the dataset has some.
        label_unit: What labels are known of where masks are hidden: each slice, each third of a
            volume (slab), or the volume; default: as `label_level` in `cases.csv`.
        validation_masks: Validation masks to use; default: all. `dxseg train` uses 10 where it
            chooses the masks itself.
        fractions: Fractions of training, validation and test cases.
        folds: Number of cross-validation folds (test cases excluded).
        fold: Fold used for validation, the other folds for training; default: the drawn validation
            cases.
        split_seed: Random seed of the split.
        seed: Random seed of the mask selection.

    Returns:
        The table: `case_id`, `group`, `split`, `fold` and, with a budget of masks, `use_mask`
        and, where it hides labels, `label_level`.

    Raises:
        UsageError: A value is out of range, or a budget exceeds the masks of the dataset.
        DxsegError: The dataset cannot be read.
    """
    from dxseg.config.mask_budget import parse_mask_budget
    from dxseg.data.splits.groups import describe_unit
    from dxseg.data.splits.holdout import make_splits, select_fold
    from dxseg.data.splits.mask_budget import choose_masks
    from dxseg.data.splits.split_table import write_splits
    from dxseg.data.table.dataset import Dataset
    from dxseg.io.progress import console, reporting

    budget = None if masks is None else parse_mask_budget(masks)
    path = Path(output)
    loaded = Dataset.load(dataset)
    cache = path.with_name(f".{path.stem}.unfinished")
    with reporting(console, "Searching near-duplicates") as progress:
        table = make_splits(
            loaded,
            fractions=fractions,
            folds=folds,
            seed=split_seed,
            cache=cache,
            progress=progress,
        )
    if fold is not None:
        table = select_fold(table, fold)
    if budget is not None or validation_masks is not None:
        table = choose_masks(
            loaded,
            table,
            train_masks=budget,
            validation_masks=validation_masks,
            seed=seed,
            budget_unit=budget_unit,
            label_unit=label_unit,
        )
    elif budget_unit is not None or label_unit is not None:
        raise UsageError("--budget-unit and --label-unit belong to a budget; give --masks NUMBER")
    write_splits(path, table)
    cache.unlink(missing_ok=True)
    return SplitTable(table, path, tuple(describe_unit(loaded)))


def info(path: StrPath | None = None, /) -> Facts:
    """Show what a dataset, a run or a model contains; without a path, the versions in use.

    Args:
        path: Folder of a dataset, a run or a model, or an exported `.onnx` file.

    Raises:
        DxsegError: The path is none of these.
    """
    if path is None:
        from importlib.metadata import version

        names = ("dxseg", "torch", "lightning", "timm", "monai", "segmentation-models-pytorch")
        return Facts({name: version(name) for name in names}, "versions")
    from dxseg.evaluation.info import describe

    return Facts(describe(path), str(path))
