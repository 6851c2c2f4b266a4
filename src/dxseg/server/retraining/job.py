"""One training in its folder: what it is trained on, how far it is, and how it compares.

The folder holds all that a killed training is continued from:

- `dataset/`: the table when the training began, over the files of the dataset (`roots`), which
  later saves do not change;
- `splits.csv`, `config.yaml`: those of the run in use, with the masks that were saved since;
- `job.json`: written last, so that half a folder is no training;
- `run/`: the run; `before/`: the model in use on the same validation cases;
- `comparison.json`: both of them, once the training is done; `failure.txt`: why it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxseg.config.presets import read_config
from dxseg.config.schema import RunConfig
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.annotations import Annotation
from dxseg.data.table.cases import TRAIN, VALIDATION
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import write_json_atomic, write_text_atomic
from dxseg.io.csv_io import read_table
from dxseg.io.json_io import read_json
from dxseg.io.remote import is_address

JOB, FAILURE, COMPARISON = "job.json", "failure.txt", "comparison.json"
_EVALUATION_SHARE = 0.05
"""Of the progress: what follows the last step."""


@dataclass(frozen=True)
class Job:
    """Content of `job.json`.

    Attributes:
        begun: When the table was copied, UTC, ISO 8601.
        model: Folder of the run whose model was in use.
        masks: Training masks of lesions.
        limited: Whether the first run had a budget: masks that nobody has saved since, and that it
            was not to use, are not used later either.
        steps: Optimizer steps of each stage, in their order.
    """

    begun: str
    model: str
    masks: int
    limited: bool
    steps: dict[str, int]


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        phase: `preparing`, the name of a stage, or `evaluating`.
        step: Optimizer steps that are done, of all stages.
        steps: Of all stages.
        fraction: Of the whole, 0 to 1.
    """

    phase: str
    step: int
    steps: int
    fraction: float


@dataclass(frozen=True)
class UsableMasks:
    """The masks that a training may use.

    Attributes:
        splits: The splits of the run in use, with the new masks in `use_mask`.
        masks: Training masks of lesions.
        new: Those of them that the run in use was not trained on.
        saved: When people saved those of the new ones that they drew, UTC, ISO 8601.
        limited: As in `Job`.
    """

    splits: pd.DataFrame
    masks: int
    new: int
    saved: tuple[str, ...]
    limited: bool


def usable_masks(dataset: Dataset, annotations: Sequence[Annotation], run: Path) -> UsableMasks:
    """The masks of a run, and those of training cases that were saved since.

    Validation and test cases keep the masks that they had: none of theirs is trained on, and all
    models are compared on the same ones. Without a budget every mask of a training case is used.

    Args:
        dataset: The dataset as it is now.
        annotations: Of the dataset.
        run: The run in use.

    Raises:
        DxsegError: The run's files cannot be read, or its split has other cases than the dataset.
    """
    splits = read_splits(run / "splits.csv", dataset)
    if "use_mask" not in splits:
        raise DxsegError(f"{run / 'splits.csv'}: no column use_mask; expected that of a run")
    lesion_free, has_mask = dataset.lesion_free.to_numpy(), dataset.has_mask.to_numpy()
    used = splits["use_mask"].to_numpy() & has_mask
    train = splits["split"].eq(TRAIN).to_numpy()
    known, limited = _known_masks(run, annotations)
    saved = {one.mask: one.time for one in annotations if one.mask not in known}
    drawn = train & ~lesion_free & dataset.cases["mask"].isin(list(saved)).to_numpy()
    new = drawn.copy()
    if not limited:
        new |= train & ~lesion_free & has_mask & ~used
    used |= new | (train & lesion_free)
    return UsableMasks(
        splits.assign(use_mask=used),
        masks=int((used & train & ~lesion_free).sum()),
        new=int(new.sum()),
        saved=tuple(saved[mask] for mask in dataset.cases["mask"][drawn]),
        limited=limited,
    )


def make_job(folder: Path, dataset: Dataset, usable: UsableMasks, run: Path, begun: str) -> None:
    """Make the folder of a training.

    Args:
        folder: Of the training.
        dataset: The dataset as it is now.
        usable: From `usable_masks`.
        run: The run in use.
        begun: When the dataset was read, UTC, ISO 8601.

    Raises:
        UsageError: There is no new mask, or no validation mask to compare the models on.
        DxsegError: The run's configuration cannot be read.
    """
    splits = usable.splits
    if not usable.new:
        raise UsageError(
            "no training case has a mask that the model in use was not trained on; save some first"
        )
    in_validation = splits["split"].eq(VALIDATION).to_numpy()
    if not (in_validation & splits["use_mask"] & ~dataset.lesion_free.to_numpy()).any():
        raise UsageError(
            f"{run / 'splits.csv'}: no validation case with a lesion has a mask that may be used, "
            "so two models cannot be compared; train a run whose split has some, and serve it"
        )
    config = read_config(run / "config.yaml")
    data = config.data.model_copy(
        # Where `dxseg train` keeps them: images that are decoded already are not decoded again.
        update={"cache_dir": config.data.cache_dir or str(dataset.root / ".cache")}
    )
    split = config.split.model_copy(update={"masks": None})  # the file says which masks
    config = config.model_copy(update={"data": data, "split": split})
    copied = (folder / "dataset").resolve()
    roots = [_seen_from(copied, dataset.root, root) for root in ("", *dataset.spec.roots)]
    spec = dataset.spec.model_copy(update={"roots": roots})
    Dataset.create(copied, spec, dataset.cases)
    write_splits(folder / "splits.csv", splits)
    write_text_atomic(folder / "config.yaml", config.to_yaml())
    steps = _steps(config, dataset, splits)
    job = Job(begun, str(run), usable.masks, usable.limited, steps)
    write_json_atomic(folder / JOB, asdict(job))


def read_job(folder: Path) -> Job:
    """Read `job.json`.

    Args:
        folder: Of the training.

    Raises:
        DxsegError: It is no such file.
    """
    path = folder / JOB
    try:
        return Job(**read_json(path, "cancel the training"))
    except TypeError as error:
        raise DxsegError(
            f"{path}: {error}; expected what a training is of; cancel the training"
        ) from error


def read_progress(folder: Path, job: Job) -> Progress:
    """Read how far a training is, from the files of its run.

    Args:
        folder: Of the training.
        job: Its `job.json`.
    """
    run, total = folder / "run", sum(job.steps.values())
    if (run / "run.json").is_file():
        return Progress("evaluating", total, total, 1 - _EVALUATION_SHARE)
    begun = [name for name in job.steps if (run / name).is_dir()]
    if not begun:
        return Progress("preparing", 0, total, 0.0)
    # A stage may end early; those before the last one that has begun are over.
    done = sum(job.steps[name] for name in begun[:-1]) + _step(run / begun[-1] / "metrics.csv")
    return Progress(begun[-1], done, total, (1 - _EVALUATION_SHARE) * done / total)


def read_comparison(folder: Path) -> dict[str, Any]:
    """Read `comparison.json`: `difference`, `low`, `high`, `images`, `groups`, `p_value`.

    Args:
        folder: Of the training.

    Raises:
        DxsegError: It cannot be read.
    """
    found: dict[str, Any] = read_json(folder / COMPARISON, "cancel the training")
    return found


def _known_masks(run: Path, annotations: Sequence[Annotation]) -> tuple[set[str], bool]:
    """Saved masks that a run could be trained on, and whether it had a budget.

    Of a run that was trained here, those of the table it was trained on; of another, those that are
    older than it.
    """
    if (run.parent / JOB).is_file():
        table = read_table(run.parent / "dataset" / "cases.csv")
        return set(table["mask"]), read_job(run.parent).limited
    finished = str(read_json(run / "run.json", "train the run again").get("finished", ""))
    older = {one.mask for one in annotations if one.time <= finished}
    return older, read_config(run / "config.yaml").split.masks is not None


def _seen_from(folder: Path, root: Path, name: str) -> str:
    """A root of the dataset as a root of its copy; relative, because names are short."""
    if is_address(name) or Path(name).is_absolute():
        return name
    return os.path.relpath(root / name, folder)


def _steps(config: RunConfig, dataset: Dataset, splits: pd.DataFrame) -> dict[str, int]:
    steps = {}
    if config.model.requires_stage1:
        labeled = dataset.image_labels.ne("").to_numpy() | (dataset.studies >= 0)
        count = int(np.sum(labeled & splits["split"].eq(TRAIN).to_numpy()))
        steps["stage1"] = config.stage1.for_images(count, config.data.batch_size).total_steps
    for name in config.stages:
        stage = getattr(config, "student" if name.startswith("student") else name)
        steps[name] = stage.total_steps
    return steps


def _step(table: Path) -> int:
    """The last step in the metrics of a stage; 0 before its first epoch has ended."""
    if not table.is_file():
        return 0
    return int(float(read_table(table)["step"].iloc[-1]))
