"""Whether there is enough to train on: checked before anything is trained, with one message."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.config.presets import load_config, method_names
from dxseg.config.schema import RunConfig
from dxseg.data.splits.groups import label_sets
from dxseg.data.splits.known_labels import known_labels
from dxseg.data.table.cases import TEST, TRAIN, VALIDATION
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.training.datamodule.spacing import check_sliding_window, target_spacing


def check_trainable(
    dataset: Dataset,
    splits: pd.DataFrame,
    config: RunConfig,
    *,
    drawn: bool = True,
    labels: bool = True,
    masks: bool = True,
) -> None:
    """Refuse to train on too little.

    Args:
        dataset: The cases.
        splits: With `use_mask`, and perhaps `label_level`, in the order of the cases.
        config: Of the run.
        drawn: Whether the splits were drawn by the configuration, which then asks for validation
            and test cases.
        labels: Whether this run learns from labels.
        masks: Whether this run learns from masks.

    Raises:
        DxsegError: Fewer than two labels to tell apart (of images, for a label head), one patient,
            no lesion in any mask, or no validation or test case; names all of these, and the
            methods that work. Or there is no spacing to choose one from, or an image is larger than
            the input although there is a sliding window.
    """
    dataset = known_labels(dataset, splits)
    train = splits["split"].eq(TRAIN).to_numpy()
    problems = list(_too_few_groups(splits, config, drawn))
    if labels:
        problems.extend(_too_few_labels(dataset, train, config))
    if masks:
        problems.extend(_too_few_for_label_head(dataset, train, config))
        usable = train & splits["use_mask"].to_numpy(dtype=bool)
        problems.extend(_no_lesion(dataset, usable))
    if problems:
        raise DxsegError(
            "\n  ".join([f"{dataset.root}: too little to train {config.method} on:", *problems])
        )
    check_sliding_window(dataset, splits, config, target_spacing(dataset, config.data.spacing))


def _too_few_labels(dataset: Dataset, train: NDArray[np.bool_], config: RunConfig) -> Iterator[str]:
    own = [*dataset.image_labels[train], *dataset.study_labels[train & (dataset.studies >= 0)]]
    known = {labels for labels in label_sets(dataset, pd.Series(own, dtype=str)) if labels}
    if len(known) > 1:
        return
    plain = [one for one in method_names() if not load_config("cpu", one).model.learns_labels]
    methods = f"train a method that learns from masks alone (--method NAME: {', '.join(plain)})"
    if not known:
        yield (
            "stage 1 and label heads need image-level labels, and no training case has one; add "
            f"labels to cases.csv, or {methods}"
        )
        return
    label = ";".join(sorted(next(iter(known))))
    yield (
        f"all labeled training cases have the label {label!r}, and {config.method} learns to tell "
        f"labels apart; add images with another label, such as lesion-free ones, or {methods}"
    )


def check_label_head(dataset: Dataset, splits: pd.DataFrame, config: RunConfig) -> None:
    """Refuse to train a label head on one label of images: it would learn that label for all.

    Args:
        dataset: The cases.
        splits: As in `check_trainable`.
        config: Of the run.

    Raises:
        DxsegError: There is a label head, and no two labels of training images to tell apart.
    """
    train = splits["split"].eq(TRAIN).to_numpy()
    for problem in _too_few_for_label_head(known_labels(dataset, splits), train, config):
        raise DxsegError(f"{dataset.root}: {problem}")


def _too_few_for_label_head(
    dataset: Dataset, train: NDArray[np.bool_], config: RunConfig
) -> Iterator[str]:
    student = config.student is not None and config.model.student.label_head
    if not (config.model.label_head or student) or not (dataset.studies[train] >= 0).any():
        return
    known = sorted(set(dataset.image_labels[train]) - {""})
    if len(known) > 1:
        return
    models = {name: load_config("cpu", name) for name in method_names()}
    others = [name for name, one in models.items() if _classifies_beside(one)]
    yield (
        f"{config.method} trains a label head on labels of images, and those of lesions are of "
        f"studies (label_level) only: it would learn {known[0] if known else 'nothing'!r} for all; "
        "train a method whose stage-1 classifier, which learns from studies, decides (--method "
        f"NAME: {', '.join(others)}), or label images of both kinds"
    )


def _classifies_beside(config: RunConfig) -> bool:
    """Whether the last network of a method decides by its stage-1 classifier."""
    model = config.model if config.student is None else config.model.student
    return model.contains_stage1


def _too_few_groups(splits: pd.DataFrame, config: RunConfig, drawn: bool) -> Iterator[str]:
    used = splits[splits["split"].isin([TRAIN, VALIDATION, TEST])]
    if used["group"].nunique() < 2:
        yield (
            f"all {len(used)} cases are of one patient or group of near-duplicates, so none can "
            "validate or test; add patients, or correct patient_id in cases.csv"
        )
        return
    wanted = dict(zip((TRAIN, VALIDATION, TEST), config.split.fractions, strict=True))
    for part, fraction in wanted.items():
        absent = not used["split"].eq(part).any()
        if absent and (part == TRAIN or (drawn and fraction > 0)):
            yield (
                f"no {part} case: {used['group'].nunique()} patients or groups are too few; add "
                "some, or choose other fractions, such as --set split.fractions=[0.5,0.25,0.25]"
                + ("" if part == TRAIN else ", 0 for none")
            )


def _no_lesion(dataset: Dataset, usable: NDArray[np.bool_]) -> Iterator[str]:
    """Read masks until one shows a lesion."""
    rows = dataset.cases[usable & dataset.cases["mask"].ne("").to_numpy()]
    lesions = rows[~dataset.lesion_free[rows.index]]
    where = f"{dataset.root / 'cases.csv'}"
    if lesions.empty:
        yield (
            f"{where}: no training case with a lesion has a mask that may be used; add masks, or "
            "raise --masks"
        )
        return
    if any(np.any(dataset.read_mask(row)) for row in lesions.itertuples()):
        return
    yield (
        f"{where}: none of the {len(lesions)} training masks shows a lesion; draw some, or correct "
        "the column mask"
    )
