"""From a model and a dataset to a table of the cases to annotate next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.active_learning.kmeanspp import select_cases, unit_features
from dxseg.active_learning.scores import Score, score_image
from dxseg.data.splits.groups import group_cases
from dxseg.data.splits.known_labels import known_labels
from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.evaluation.stream import Progress, by_volume, predict_rows
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.metrics.image_level import lesion_probability

COLUMNS = ("case_id", "rank", "score", "uncertainty", "disagreement", "distance", "volume_id")


@dataclass(frozen=True)
class Suggestions:
    """Cases to annotate next.

    Attributes:
        table: `COLUMNS`, one row per suggested case, in order of priority; of a volume, that is
            suggested as a whole, the slice with the highest score. rank: 1, 2, ...;
            score, uncertainty, disagreement: see `dxseg.active_learning.scores.Score`; distance: 0
            to 4, squared, in feature space, to the nearest case that is annotated or ranks
            higher.
        candidates: Number of cases without a mask that were scored.
        failed: Case and reason of each image that could not be used.
        count: Number of cases that were asked for.
        path: The file of the table.
    """

    table: pd.DataFrame
    candidates: int
    failed: list[tuple[str, str]]
    count: int
    path: Path

    def __str__(self) -> str:
        fewer = len(self.table) < min(self.count, self.candidates)
        why = "; one of each patient or group of near-duplicates" if fewer else ""
        return (
            f"{len(self.table)} of {self.candidates} cases without a mask suggested{why}. "
            f"Table: {self.path}"
        )


@dataclass
class CandidatePool:
    """Scores and features of the candidates, and features of the annotated cases.

    Attributes:
        case_ids: Case ids of the candidates.
        groups: Their groups.
        scores: Their scores.
        features: Their features, (F,) each.
        volumes: Their volumes; "" for images of none.
        annotated: Features of the cases with a mask, (F,) each.
        failed: Case and reason of each image that could not be used.
    """

    case_ids: list[str] = field(default_factory=list)
    groups: list[Any] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    features: list[NDArray[np.float32]] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    annotated: list[NDArray[np.float32]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def select_rows(
    data: Dataset,
    splits: str | Path | None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Select the candidates, and the annotated lesions that they should differ from.

    Args:
        data: The dataset.
        splits: A splits.csv: only its training cases are candidates, and hidden masks (`use_mask`
            False) count as missing. Without it, cases whose split in cases.csv is not train are
            left out.
        cache: File that caches the comparison of images, in case of an interruption.
        progress: Called while images are compared.

    Returns:
        Rows of `Dataset.cases`; label only if it is about the image itself; the columns group
        (number of the group) and annotated (whether the case has a mask).

    Raises:
        UsageError: There is no candidate.
    """
    annotated = data.cases["mask"].ne("").to_numpy()
    table = None if splits is None else read_splits(splits, data)
    labeled = data if table is None else known_labels(data, table)
    selected = ~labeled.lesion_free.to_numpy()
    if table is None:
        selected &= data.cases["split"].isin(["", "train"]).to_numpy()
        # Before the images are compared, which takes a while.
        _check_any(selected & ~annotated, data)
        groups, dropped = group_cases(data, cache=cache, progress=progress)
        selected &= ~dropped
    else:
        groups = table["group"].to_numpy()
        selected &= table["split"].eq("train").to_numpy()
        if "use_mask" in table:
            annotated = annotated & table["use_mask"].to_numpy()
    _check_any(selected & ~annotated, data)
    rows = data.cases.assign(group=groups, label=labeled.image_labels, annotated=annotated)
    return rows[selected]


def score_rows(
    predictor: Predictor, data: Dataset, rows: pd.DataFrame, progress: Progress | None = None
) -> CandidatePool:
    """Predict every row without a label prompt, and score the candidates.

    Args:
        predictor: A predictor that outputs features.
        data: The dataset.
        rows: Result of `select_rows`.
        progress: Called with the number of images done and their total.
    """
    pool = CandidatePool()
    rows = by_volume(rows)
    stream = predict_rows(predictor, data, rows)
    for done, (row, (name, found)) in enumerate(zip(rows.itertuples(), stream, strict=True)):
        if progress is not None:
            progress(done + 1, len(rows))
        if isinstance(found, DxsegError):
            pool.failed.append((name, str(found)))
            continue
        assert found.features is not None, "a network in PyTorch outputs them"
        if row.annotated:
            pool.annotated.append(found.features)
            continue
        pool.case_ids.append(name)
        pool.groups.append(row.group)
        pool.volumes.append(str(row.volume_id))
        pool.features.append(found.features)
        pool.scores.append(_score(found, bool(row.label), predictor))
    return pool


def rank_candidates(pool: CandidatePool, count: int, seed: int) -> pd.DataFrame:
    """Rank the candidates: images, or volumes, for which their slice with the highest score stands.

    Args:
        pool: The scored candidates.
        count: Maximum number of cases.
        seed: Random seed.

    Returns:
        See `Suggestions.table`.
    """
    points = unit_features(np.stack([*pool.features, *pool.annotated]))
    weights = np.array([score.score for score in pool.scores])
    number, shown = len(pool.features), _highest_slices(pool.volumes, weights)
    chosen, distances = select_cases(
        points[:number][shown],
        weights[shown],
        np.array(pool.groups, np.int64)[shown],
        count,
        annotated=points[number:],
        seed=seed,
    )
    selected = shown[chosen]
    return pd.DataFrame(
        {
            "case_id": [pool.case_ids[one] for one in selected],
            "rank": np.arange(1, len(selected) + 1),
            "score": weights[selected],
            "uncertainty": [pool.scores[one].uncertainty for one in selected],
            "disagreement": [pool.scores[one].disagreement for one in selected],
            "distance": distances,
            "volume_id": [pool.volumes[one] for one in selected],
        },
        columns=list(COLUMNS),
    )


def _highest_slices(volumes: Sequence[str], weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """The position of each image that is no slice, and of the highest slice of each volume."""
    highest: dict[str | int, int] = {}
    for position, volume in enumerate(volumes):
        unit = volume or position
        if weights[position] > weights[highest.setdefault(unit, position)]:
            highest[unit] = position
    return np.array(sorted(highest.values()), dtype=np.int64)


def _check_any(candidates: NDArray[np.bool_], data: Dataset) -> None:
    if not candidates.any():
        raise UsageError(
            f"{data.root}: every training case has a mask or a lesion-free label; there is "
            "nothing to annotate"
        )


def _score(prediction: Prediction, known_lesion: bool, predictor: Predictor) -> Score:
    info = predictor.info
    probability = (
        1.0
        if known_lesion
        else lesion_probability(prediction.label_probabilities, info.lesion_free, info.multi_label)
    )
    return score_image(prediction.probabilities, prediction.mask, probability)
