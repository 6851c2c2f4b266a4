"""Which cases a run trains on: its splits, with the mask budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from dxseg.config.schema import RunConfig, SplitConfig
from dxseg.data.splits.holdout import make_splits
from dxseg.data.splits.mask_budget import budget_units, choose_masks, lesion_cases
from dxseg.data.splits.split_table import read_splits, without_masks, write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, refuse_unused
from dxseg.io.csv_io import read_table
from dxseg.io.progress import Report, console, reporting
from dxseg.training.run_folder import start_folder


def run_splits(
    dataset: Dataset,
    output: Path,
    config: RunConfig,
    given: Path | None,
    check: Callable[..., None],
) -> pd.DataFrame:
    """The splits of a run; its folder is started once they are known to be enough to train on.

    Otherwise a budget of masks that cannot be met would leave a folder behind that refuses the
    corrected command.
    """
    path = output / "splits.csv"
    if not path.is_file():
        with reporting(console, "Looking for near-duplicates") as report:
            splits = resolve_splits(dataset, config, given, report)
        drawn = given is None and not dataset.cases["split"].ne("").all()
        check(dataset, splits, config, drawn=drawn)
        start_folder(output, config, dataset)
        write_splits(path, splits)
        return splits
    return recorded_splits(dataset, output, config, given)


def recorded_splits(
    dataset: Dataset, output: Path, config: RunConfig, given: Path | None
) -> pd.DataFrame:
    """The splits that a run was started on.

    Raises:
        DxsegError: others are given.
    """
    recorded = read_splits(output / "splits.csv", dataset)
    if given is not None and not resolve_splits(dataset, config, given).equals(recorded):
        raise DxsegError(
            f"{output}: was started on other splits than {given}; choose another folder with --out"
        )
    return recorded


def check_split_options(given: Path, split: SplitConfig) -> None:
    """Refuse options that have no effect on splits which are given.

    Raises:
        UsageError: one was set.
    """
    unused = {"fractions", "split_seed"}
    if split.masks is None and "use_mask" in read_table(given):
        unused |= {"budget_unit", "label_unit", "validation_masks"}
    reason = f"{given}: is used as it is, except that --masks chooses masks anew"
    refuse_unused(reason, {f"split.{one}": True for one in sorted(unused & split.model_fields_set)})


def resolve_splits(
    dataset: Dataset, config: RunConfig, given: Path | None, report: Report | None = None
) -> pd.DataFrame:
    """The splits of a run with its mask budget, from a file or drawn.

    A file with a column `use_mask` is used unchanged, unless the configuration has a budget.
    """
    split = config.split
    if given is not None:
        splits = read_splits(given, dataset)
        if "use_mask" in splits and split.masks is None:
            _check_masks(splits, dataset, given)
            return splits
        splits = without_masks(splits)
    else:
        splits = make_splits(
            dataset, fractions=split.fractions, seed=split.split_seed, progress=report
        )
    budget = split.validation_masks
    if budget is not None:
        unit = budget_units(dataset, split.budget_unit)
        budget = min(budget, len(lesion_cases(dataset, splits, "validation", unit)))
    return choose_masks(
        dataset,
        splits,
        train_masks=split.masks,
        validation_masks=budget,
        seed=config.seed,
        budget_unit=split.budget_unit,
        label_unit=split.label_unit,
    )


def _check_masks(splits: pd.DataFrame, dataset: Dataset, source: Path) -> None:
    """Refuse masks that the table of cases does not have: they would be learned as empty.

    Raises:
        DxsegError: a training or validation case without a mask is marked in `use_mask`.
    """
    used = splits["use_mask"] & splits["split"].isin(["train", "validation"])
    absent = splits["case_id"][used.to_numpy() & ~dataset.has_mask.to_numpy()]
    if len(absent):
        raise DxsegError(
            f"{source}: use_mask is True for {len(absent)} cases whose mask is not known, such as "
            f"{absent.iloc[0]!r}; set it to False, or give their masks in "
            f"{dataset.root / 'cases.csv'}"
        )
