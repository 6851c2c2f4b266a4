"""From a model and a dataset to a table of the cases to annotate next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from dxseg.active_learning.kmeanspp import choose, directions
from dxseg.active_learning.scores import Score, score_image
from dxseg.data.splits.groups import group_cases
from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.evaluation.stream import Progress, images
from dxseg.inference.model_folder import find_model_folder
from dxseg.inference.onnx_file import is_onnx
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.io.atomic import write_text_atomic
from dxseg.io.progress import reporting
from dxseg.metrics.image_level import lesion_probability

COLUMNS = ("case_id", "rank", "score", "uncertainty", "disagreement", "distance")


@dataclass(frozen=True)
class Suggestions:
    """What to annotate next.

    Attributes:
        table: `COLUMNS`, one row a suggested case, the first to annotate first. rank: 1, 2, ...;
            score, uncertainty, disagreement: see `dxseg.active_learning.scores.Score`; distance: 0
            to 4, squared, in feature space, from the nearest case that is annotated or ranks
            higher.
        candidates: How many cases without a mask were looked at.
        failed: Case and reason of each image that could not be used.
    """

    table: pd.DataFrame
    candidates: int
    failed: list[tuple[str, str]]


@dataclass
class Seen:
    """What the network said of the candidates, and the features of what is annotated.

    Attributes:
        case_ids: Of the candidates.
        groups: Their groups.
        scores: Their scores.
        features: Their features, (F,) each.
        annotated: Features of the cases with a mask, (F,) each.
        failed: Case and reason of each image that could not be used.
    """

    case_ids: list[str] = field(default_factory=list)
    groups: list[Any] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    features: list[NDArray[np.float32]] = field(default_factory=list)
    annotated: list[NDArray[np.float32]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def suggest_cases(
    model: str | Path,
    dataset: str | Path,
    output: str | Path,
    *,
    count: int = 20,
    splits: str | Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = 8,
    console: Console | None = None,
) -> Suggestions:
    """Suggest which cases without a mask to annotate next, and write the table.

    Candidates are cases whose mask is known neither from a file nor as empty from a lesion-free
    label; no two of one patient, volume or near-duplicate group are suggested. Memory grows by a
    vector of features an image.

    Args:
        model: A run folder or a model folder.
        dataset: The dataset's folder.
        output: The table to write, see `Suggestions.table`.
        count: How many cases to suggest.
        splits: A splits.csv: only its training cases count, and masks that it hides (`use_mask`
            False) count as absent. Without it, cases that cases.csv puts into another split than
            train do not count.
        seed: Of the choice.
        device: As torch names it.
        batch_size: Images through the network at once.
        console: Where progress is drawn; standard error if absent.

    Returns:
        The suggestions.

    Raises:
        UsageError: The count is below one, the model is an exported file, or no candidate is left.
        DxsegError: The model, the dataset or the splits are wrong, or no image can be read.
    """
    if count < 1:
        raise UsageError(f"count {count}: expected at least 1")
    if is_onnx(model):
        raise UsageError(
            f"{model}: an exported file does not give the features that suggestions differ by; "
            "give the folder of the run or of the model"
        )
    console = console or Console(stderr=True)
    output = Path(output)
    data = Dataset.load(dataset)
    predictor = Predictor.from_folder(find_model_folder(model), device, batch_size)
    cache = output.with_name(f".{output.stem}.unfinished")
    with reporting(console, "Looking for near-duplicates") as progress:
        rows = rows_in_question(data, splits, cache=cache, progress=progress)
    with reporting(console, "Looking at cases") as progress:
        seen = look_at(predictor, data, rows, progress)
    if not seen.case_ids:
        case, reason = seen.failed[0]
        raise DxsegError(f"none of {len(seen.failed)} images can be used; case {case!r}: {reason}")
    table = rank(seen, count, seed)
    write_text_atomic(output, table.to_csv(index=False, lineterminator="\n", float_format="%.6f"))
    cache.unlink(missing_ok=True)
    return Suggestions(table, len(seen.case_ids), seen.failed)


def rows_in_question(
    data: Dataset,
    splits: str | Path | None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """The candidates, and the annotated lesions that they should differ from.

    Args:
        data: The dataset.
        splits: As for `suggest_cases`.
        cache: A file that keeps what was found out about images, for a job that is interrupted.
        progress: Called while images are compared.

    Returns:
        Rows of `Dataset.cases` with label only as far as it speaks of the image itself, the number
        of the group in the column group, and whether the case is annotated in annotated.

    Raises:
        UsageError: There is no candidate.
    """
    annotated = data.cases["mask"].ne("").to_numpy()
    wanted = ~data.lesion_free.to_numpy()
    if splits is None:
        wanted &= data.cases["split"].isin(["", "train"]).to_numpy()
        # Before images are compared, which takes a while.
        _check_any(wanted & ~annotated, data)
        groups, dropped = group_cases(data, cache=cache, progress=progress)
        wanted &= ~dropped
    else:
        divided = read_splits(splits, data)
        groups = divided["group"].to_numpy()
        wanted &= divided["split"].eq("train").to_numpy()
        if "use_mask" in divided:
            annotated = annotated & divided["use_mask"].to_numpy()
    _check_any(wanted & ~annotated, data)
    rows = data.cases.assign(group=groups, label=data.image_labels, annotated=annotated)
    return rows[wanted]


def look_at(
    predictor: Predictor, data: Dataset, rows: pd.DataFrame, progress: Progress | None = None
) -> Seen:
    """Predict every row as if nothing were known of it, and score the candidates.

    Args:
        predictor: With features.
        data: The dataset.
        rows: As `rows_in_question` gives them.
        progress: Called with the number of images done and of all.
    """
    seen = Seen()
    stream = predictor.stream(images(data, rows))
    for done, (row, (name, found)) in enumerate(zip(rows.itertuples(), stream, strict=True)):
        if progress is not None:
            progress(done + 1, len(rows))
        if isinstance(found, DxsegError):
            seen.failed.append((name, str(found)))
            continue
        assert found.features is not None, "a network in PyTorch gives them"
        if row.annotated:
            seen.annotated.append(found.features)
            continue
        seen.case_ids.append(name)
        seen.groups.append(row.group)
        seen.features.append(found.features)
        seen.scores.append(_score(found, bool(row.label), predictor))
    return seen


def rank(seen: Seen, count: int, seed: int) -> pd.DataFrame:
    """Choose among what was seen; see `Suggestions.table`."""
    points = directions(np.stack([*seen.features, *seen.annotated]))
    number = len(seen.features)
    weights = np.array([score.score for score in seen.scores])
    chosen, distances = choose(
        points[:number],
        weights,
        np.array(seen.groups, np.int64),
        count,
        annotated=points[number:],
        seed=seed,
    )
    return pd.DataFrame(
        {
            "case_id": [seen.case_ids[one] for one in chosen],
            "rank": np.arange(1, len(chosen) + 1),
            "score": weights[chosen],
            "uncertainty": [seen.scores[one].uncertainty for one in chosen],
            "disagreement": [seen.scores[one].disagreement for one in chosen],
            "distance": distances,
        },
        columns=list(COLUMNS),
    )


def _check_any(candidates: NDArray[np.bool_], data: Dataset) -> None:
    if not candidates.any():
        raise UsageError(
            f"{data.root}: every case to train on has a mask or a lesion-free label; there is "
            "nothing to annotate"
        )


def _score(prediction: Prediction, known_lesion: bool, predictor: Predictor) -> Score:
    info = predictor.info
    told = (
        1.0
        if known_lesion
        else lesion_probability(prediction.label_probabilities, info.lesion_free, info.multi_label)
    )
    return score_image(prediction.probabilities, prediction.mask, told)
