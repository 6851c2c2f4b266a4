"""Commands that train: train, distill, methods, suggest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from dxseg.commands.options import (
    PYTHON_ONLY,
    BudgetUnit,
    LabelUnit,
    MaskBudget,
    OutputPath,
    Overrides,
    StrPath,
    StrPaths,
)
from dxseg.commands.results import Methods, TrainedRun
from dxseg.config import DEFAULT_METHOD, Preset
from dxseg.errors import DxsegError, UsageError

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

    from dxseg.active_learning.suggest import Suggestions
else:
    Callback = Logger = Suggestions = Any


def train(
    dataset: StrPath,
    *,
    output: OutputPath,
    masks: MaskBudget | None = None,
    budget_unit: BudgetUnit | None = None,
    label_unit: LabelUnit | None = None,
    method: str = DEFAULT_METHOD,
    preset: Preset = "cpu",
    seed: int = 0,
    splits: StrPath | None = None,
    stage1: StrPath | None = None,
    stage2: StrPath | None = None,
    overrides: Overrides | None = None,
    logger: Annotated[Logger | None, PYTHON_ONLY] = None,
    callbacks: Annotated[Sequence[Callback], PYTHON_ONLY] = (),
) -> TrainedRun:
    """Train a method on a dataset; the same command continues an interrupted run.

    Args:
        dataset: Folder with `dataset.yaml` and `cases.csv`.
        output: Folder of the run.
        masks: Training masks to use: a count (35) or a fraction (0.1); default: all.
        budget_unit: What `masks` counts: volumes, with the masks of all their slices, or slices;
            default: volumes where the dataset has some.
        label_unit: What labels are known of where masks are hidden: each slice, each third of a
            volume (slab), or the volume; default: as `label_level` in `cases.csv`.
        method: Name of the method; `dxseg methods` lists them.
        preset: Size of images and networks, and length of the training.
        seed: Random seed of mask selection, initialization and batches.
        splits: A `splits.csv`; default: drawn.
        stage1: Finished run whose stage 1 is used.
        stage2: Finished run whose stage-2 network the further stages start from.
        overrides: Value of the configuration that replaces the preset's, such as
            `stage2.steps=600`. May be repeated; wins over the options above. In Python a nested
            dictionary: `{"stage2": {"steps": 600}}`.
        logger: Lightning logger of every stage; default: TensorBoard files in each stage's folder,
            if the extra `tensorboard` is installed.
        callbacks: Lightning callbacks of every stage. With several local devices, logger and
            callbacks must be picklable.

    Returns:
        The content of the run's `run.json`.

    Raises:
        UsageError: A name is unknown or a value out of range, a budget exceeds the masks of the
            dataset, or an option would have no effect.
        DxsegError: The dataset, the folder or another run cannot be used.
    """
    from dxseg.config.presets import load_config, merge
    from dxseg.training.run import train_run
    from dxseg.training.run_splits import check_split_options

    chosen: dict[str, Any] = {"seed": seed}
    known = {"masks": masks, "budget_unit": budget_unit, "label_unit": label_unit}
    chosen["split"] = {name: value for name, value in known.items() if value is not None}
    config = load_config(preset, method, merge(chosen, dict(overrides or {})))
    if splits is not None and not (Path(output) / "config.yaml").is_file():
        check_split_options(Path(splits), config.split)
    record = train_run(
        Path(dataset),
        Path(output),
        config,
        splits_path=None if splits is None else Path(splits),
        stage1_run=None if stage1 is None else Path(stage1),
        stage2_run=None if stage2 is None else Path(stage2),
        logger=logger,
        callbacks=callbacks,
    )
    return TrainedRun(record, Path(output))


def distill(
    runs: StrPaths,
    *,
    output: OutputPath,
    stage1: StrPath | None = None,
    dataset: StrPath | None = None,
    overrides: Overrides | None = None,
    logger: Annotated[Logger | None, PYTHON_ONLY] = None,
    callbacks: Annotated[Sequence[Callback], PYTHON_ONLY] = (),
) -> TrainedRun:
    """Train a single-branch student of a run, for deployment; the same command continues it.

    Args:
        runs: Teacher run, finished; or several, from the mean of whose masks the student learns.
            They have one split; the first is the teacher in all else.
        output: Output folder of the student run.
        stage1: Run that holds a stage 1, for a teacher whose model contains no classifier; default:
            the teacher.
        dataset: Folder of the dataset, if it has moved since.
        overrides: Value of the configuration, such as `student.steps=600`. May be repeated.
            Network, split and image size are the teacher's. In Python a nested dictionary.
        logger: Lightning logger; default: TensorBoard files in the stage's folder, if the extra
            `tensorboard` is installed.
        callbacks: Lightning callbacks. With several local devices, logger and callbacks must be
            picklable.

    Returns:
        The content of the student's `run.json`.

    Raises:
        UsageError: A value must be the teacher's, or is out of range.
        DxsegError: The teacher is not finished, its dataset has changed, or its model
            contains no classifier and no stage 1 fits.
    """
    from dxseg.config.presets import read_config
    from dxseg.training.distillation import distill_run, student_config
    from dxseg.training.run_record import read_run

    teachers = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    for teacher in teachers:
        read_run(teacher)  # has the best message for a folder that is no finished run
    config = student_config(read_config(teachers[0] / "config.yaml"), dict(overrides or {}))
    record = distill_run(
        teachers,
        Path(output),
        config,
        stage1_run=None if stage1 is None else Path(stage1),
        dataset_path=None if dataset is None else Path(dataset),
        logger=logger,
        callbacks=callbacks,
    )
    return TrainedRun(record, Path(output))


def methods() -> Methods:
    """List the named methods: the default, the paper's two branches and the controls.

    Columns: the network, the initial weights of its encoder, whether it uses image-level labels,
    and the stage after the training with masks.

    Returns:
        The configuration of each method, by name, with the preset `cpu`.
    """
    from dxseg.config.presets import load_config, method_names

    return Methods({name: load_config("cpu", name) for name in method_names()})


def suggest(
    model: StrPath,
    dataset: StrPath,
    *,
    output: OutputPath,
    count: int = 20,
    splits: StrPath | None = None,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = 8,
) -> Suggestions:
    """Suggest which cases without a mask to annotate next.

    No two suggested cases are of one patient or group of near-duplicates.

    Args:
        model: Folder of a run or of a model.
        dataset: Folder with `dataset.yaml` and `cases.csv`.
        output: The table to write: `case_id`, `rank`, the score and its parts.
        count: Number of cases to suggest.
        splits: A `splits.csv`; only training cases are candidates, hidden masks count as missing.
        seed: Random seed.
        device: Torch device: `cpu`, `cuda`, `cuda:1`, ...
        batch_size: Batch size.

    Raises:
        UsageError: `count` is below 1, the model is an exported file, or there is no candidate.
        DxsegError: The model, the dataset or the splits cannot be read.
    """
    from dxseg.active_learning.suggest import (
        Suggestions,
        rank_candidates,
        score_rows,
        select_rows,
    )
    from dxseg.data.table.dataset import Dataset
    from dxseg.inference.model_folder import find_model_folder
    from dxseg.inference.onnx_suffix import is_onnx
    from dxseg.inference.predictor import Predictor
    from dxseg.io.atomic import write_text_atomic
    from dxseg.io.progress import console, reporting

    if count < 1:
        raise UsageError(f"count {count}: expected at least 1")
    if is_onnx(model):
        raise UsageError(
            f"{model}: an exported file has no output of features, which suggestions need; give "
            "the folder of the run or of the model"
        )
    path = Path(output)
    data = Dataset.load(dataset)
    predictor = Predictor.from_folder(find_model_folder(model), device, batch_size)
    cache = path.with_name(f".{path.stem}.unfinished")
    with reporting(console, "Looking for near-duplicates") as progress:
        rows = select_rows(data, splits, cache=cache, progress=progress)
    with reporting(console, "Scoring cases") as progress:
        pool = score_rows(predictor, data, rows, progress)
    if not pool.case_ids:
        case, reason = pool.failed[0]
        raise DxsegError(f"none of {len(pool.failed)} images can be used; case {case!r}: {reason}")
    table = rank_candidates(pool, count, seed)
    write_text_atomic(path, table.to_csv(index=False, lineterminator="\n", float_format="%.6f"))
    cache.unlink(missing_ok=True)
    return Suggestions(table, len(pool.case_ids), pool.failed, count, path)
