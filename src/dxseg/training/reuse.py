"""Finished stages of other runs: whether a run may go on from them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dxseg.config.presets import read_config
from dxseg.config.schema import RunConfig
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import sha256_file
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.factory import Task
from dxseg.training.run_record import read_run
from dxseg.training.stages import load_stage1


def load_stage1_of(
    other: Path,
    splits: pd.DataFrame,
    config: RunConfig,
    task: Task,
) -> CoarseBranch:
    """The stage 1 of another run.

    Args:
        other: the run.
        splits: of this run.
        config: of this run.
        task: of this run.

    Raises:
        DxsegError: it is not finished, is another network, or has seen validation or test cases.
    """
    coarse, record = load_stage1(other / "stage1")
    seen = splits["case_id"].isin(record.case_ids)
    unseen = splits["split"].isin(["validation", "test"])
    seen_groups = set(splits.loc[seen, "group"])
    leaked = unseen & (seen | splits["group"].isin(seen_groups))
    if leaked.any():
        raise DxsegError(
            f"{other / 'stage1'}: this classifier was trained on {int(leaked.sum())} cases (or "
            "others of their patient or near-duplicate group) that are validation or test cases "
            "here; train stage 1 on this run's splits, or give both runs the same --splits file"
        )
    mine = (config.model.backbone, config.model.decoder_channels, task)
    if (record.model.backbone, record.model.decoder_channels, record.task) != mine:
        raise DxsegError(
            f"{other / 'stage1'}: another backbone, decoder or set of labels than this run's; use "
            "the same preset and dataset for both"
        )
    return coarse


def check_stage2(other: Path, output: Path, config: RunConfig, dataset: Dataset) -> None:
    """Check that the network of another run is what this run's stage 2 would end with.

    Raises:
        DxsegError: its configuration, masks, splits or dataset differ, or it is not finished.
        UsageError: this run has no self-training to go on with.
    """
    if config.self_training is None:
        raise UsageError(
            f"method {config.method!r} has no self-training, so nothing can go on from the stage "
            f"2 of "
            f"{other}; leave the option out, or choose a method that trains itself"
        )
    theirs, record = read_config(other / "config.yaml"), read_run(other)
    aside = {"method", "self_training", "rule_out_sensitivity", "rule_in_specificity", "device"}
    differing = [
        key
        for key, value in config.model_dump(exclude=aside).items()
        if theirs.model_dump(exclude=aside)[key] != value
    ]
    if theirs.self_training is not None:
        differing.append("self_training")
    if record["splits_sha256"] != sha256_file(output / "splits.csv"):
        differing.append("splits")
    if record["dataset_digest"] != dataset.digest():
        differing.append("dataset")
    if differing:
        raise DxsegError(
            f"{other}: cannot stand in for this run's stage 2: other {', '.join(differing)}; give "
            "a run of the same method without self-training, on the same splits, with the same seed"
        )
