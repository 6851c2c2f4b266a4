"""Read evaluated runs and check that they can be compared."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxseg.errors import DxsegError, UsageError
from dxseg.evaluation.summary import AverageBy, read_per_image, values_of
from dxseg.evaluation.volume_summary import (
    VOLUME_MEANS,
    no_volumes,
    read_per_volume,
    volume_values,
)
from dxseg.training.run_record import read_run


@dataclass(frozen=True)
class EvaluatedRun:
    """An evaluated run.

    Attributes:
        path: The folder.
        method: Name of its method.
        seed: Of the mask selection and initialization.
        averaged_by: Unit of the means.
        units: Of distances and areas.
        table: `per_image.csv`, sorted by case_id.
        summary: `evaluation.json`.
        volumes: `per_volume.csv`; no rows where images are no slices.
    """

    path: Path
    method: str
    seed: int
    averaged_by: AverageBy
    units: dict[str, Any]
    table: pd.DataFrame
    summary: dict[str, Any]
    volumes: pd.DataFrame = field(default_factory=no_volumes)

    def values(self, metric: str) -> pd.DataFrame:
        """The value of each image, or of each volume, as `case_id`, `group` and `value`.

        Args:
            metric: A key of `MEANS` or `VOLUME_MEANS`; NaN on cases that are not in the mean.
        """
        if metric in VOLUME_MEANS:
            named = self.volumes.rename(columns={"volume_id": "case_id"})
            return named[["case_id", "group"]].assign(value=volume_values(self.volumes, metric))
        return self.table[["case_id", "group"]].assign(value=values_of(self.table, metric))


def file_suffix(split: str) -> str:
    """Suffix of the file stems of an evaluation."""
    return "" if split == "test" else f"_{split}"


def load_run(path: Path, split: str = "test") -> EvaluatedRun:
    """Read the results of `dxseg train` and `dxseg evaluate` in a run folder.

    Args:
        path: The run folder.
        split: The evaluated split.

    Raises:
        DxsegError: A file is missing or wrong, for example because the run is not evaluated.
    """
    record = read_run(path)
    method, seed = record.get("method"), record.get("seed")
    if not isinstance(method, str) or not method or not isinstance(seed, int):
        raise DxsegError(
            f"{path / 'run.json'}: method is {method!r} and seed {seed!r}; expected a name and an "
            "integer"
        )
    suffix = file_suffix(split)
    table = read_per_image(path / f"per_image{suffix}.csv")
    source = path / f"evaluation{suffix}.json"
    try:
        evaluation = json.loads(source.read_text(encoding="utf-8"))
        averaged_by, units = evaluation["averaged_by"], evaluation["units"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DxsegError(
            f"{source}: not an evaluation ({error!r}); run `dxseg evaluate`"
        ) from error
    volumes = read_per_volume(path / f"per_volume{suffix}.csv")
    return EvaluatedRun(
        path, method, seed, averaged_by, units, table.sort_values("case_id"), evaluation, volumes
    )


def is_evaluated(folder: Path, split: str) -> bool:
    """Whether a run is evaluated on the split."""
    return (folder / f"evaluation{file_suffix(split)}.json").is_file()


def check_seeds(runs: list[EvaluatedRun]) -> list[int]:
    """Check that every method has every seed once.

    Args:
        runs: At least one.

    Returns:
        The seeds, sorted.

    Raises:
        UsageError: A method has a seed twice, or lacks one.
    """
    by_method: dict[str, list[int]] = {run.method: [] for run in runs}
    for run in runs:
        if run.seed in by_method[run.method]:
            raise UsageError(
                f"{run.path}: method {run.method!r} has seed {run.seed} twice; give one"
            )
        by_method[run.method].append(run.seed)
    every = sorted({run.seed for run in runs})
    for name, seeds in by_method.items():
        missing = sorted(set(every) - set(seeds))
        if missing:
            raise UsageError(
                f"method {name!r} lacks the seeds {missing} that other methods have; train and "
                "evaluate them, or leave those seeds out of every method"
            )
    return every


def check_comparable(runs: list[EvaluatedRun]) -> None:
    """Check that the methods of each seed have the same cases with the same true masks.

    Args:
        runs: At least one.

    Raises:
        DxsegError: Cases, truth, groups, averaging or units differ.
    """
    first_of_seed: dict[int, EvaluatedRun] = {}
    group_of: dict[str, str] = {}
    for run in runs:
        first = first_of_seed.setdefault(run.seed, run)
        if (run.averaged_by, run.units) != (runs[0].averaged_by, runs[0].units):
            raise DxsegError(
                f"{run.path} averages by {run.averaged_by} in {run.units}, {runs[0].path} by "
                f"{runs[0].averaged_by} in {runs[0].units}; evaluate them in the same way"
            )
        unpaired = set(run.table["case_id"]) ^ set(first.table["case_id"])
        if unpaired:
            raise DxsegError(
                f"{run.path} and {first.path} have seed {run.seed} but {len(unpaired)} test "
                f"cases in one only ({', '.join(sorted(unpaired)[:5])}); train both on one split"
            )
        for column in ("true_area", "lesion_free"):
            one = run.table[column].to_numpy(dtype=float)
            other = first.table[column].to_numpy(dtype=float)
            different = ~np.isclose(one, other, equal_nan=True)
            if different.any():
                cases = ", ".join(run.table["case_id"][different].head(5))
                raise DxsegError(
                    f"{run.path} and {first.path} differ in {column} of {int(different.sum())} "
                    f"cases ({cases}): the masks have changed; evaluate both again"
                )
        _check_volumes(run, first)
        for case, group in zip(run.table["case_id"], run.table["group"], strict=True):
            if group_of.setdefault(case, group) != group:
                raise DxsegError(
                    f"{run.path}: case {case!r} belongs to group {group!r}, in another run to "
                    f"{group_of[case]!r}; train all runs on splits of one dataset"
                )


def _check_volumes(run: EvaluatedRun, first: EvaluatedRun) -> None:
    one, other = (
        one.volumes.set_index("volume_id")["true_voxels"].sort_index() for one in (run, first)
    )
    if not one.equals(other):
        raise DxsegError(
            f"{run.path} and {first.path} differ in the volumes of seed {run.seed}, or in their "
            "true voxels: the masks have changed, or one was evaluated by an earlier version; "
            "evaluate both again"
        )
