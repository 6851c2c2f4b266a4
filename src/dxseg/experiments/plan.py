"""Which runs an experiment consists of, and which run needs the folder of which other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dxseg.config.schema import RunConfig
from dxseg.experiments.experiment import Budget, Experiment, Method
from dxseg.io.atomic import sha256_json

STAGE1 = "stage1"
"""Folder of the classifiers that runs share, next to the folders of the methods."""

# Options without effect on stage 1: runs that differ only in them share it. A new option that is
# missing here costs time, but mixes nothing up.
_STAGE2_SECTIONS = (
    *("method", "split", "stage2", "self_training", "student"),
    *("rule_out_sensitivity", "rule_in_specificity"),
)
_STAGE2_OPTIONS = {
    "model": (
        "architecture",
        "skips",
        "encoder_init",
        "coarse_init",
        "coarse_learning_rate_scale",
        "shared_encoder_levels",
        "label_head",
        "classifier",
    ),
    "data": (
        *("lesion_free_fraction", "label_prompt_prob", "patch_size", "soft_masks"),
        "sliding_window",
    ),
}
_LATER_OPTIONS = (
    *(("split", "budget_unit"), ("split", "label_unit")),
    *(("data", "spacing"), ("data", "soft_masks")),
)
"""Unset, the name of a stage 1 is that of versions which did not have them."""


@dataclass(frozen=True)
class Fold:
    """One draw of a fold of the cross-validation; with seeds on a fixed split, one seed.

    Attributes:
        name: Name of its folders, such as `fold-0`, `fold-0-draw-1` or `seed-0`.
        number: Number of the fold; None on a fixed split.
        seed: Seed of its runs.
        splits: Name of its splits file.
        draw: Number of the draw of masks and seed within the fold, or within the fixed split.
    """

    name: str
    number: int | None
    seed: int
    splits: str
    draw: int = 0


@dataclass(frozen=True)
class Job:
    """One stage 1, or one run of a method.

    Attributes:
        name: Its name, which is also its folder, relative to that of all runs.
        config: Configuration of the run.
        fold: The fold it is trained and tested on.
        method: Name of the method in the experiment; None for a stage 1.
        masks: Its budget; None for a stage 1.
        inputs: Argument of `train_run` to the name of the job whose folder it gets; of
            `distill_run` if there is a teacher among them.
    """

    name: str
    config: RunConfig
    fold: Fold
    method: str | None = None
    masks: Budget | None = None
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def is_stage1(self) -> bool:
        """Whether the job trains a classifier that runs of several methods use."""
        return self.method is None


def list_folds(experiment: Experiment) -> list[Fold]:
    """List the folds of an experiment, all first draws first; or its seeds on a fixed split."""
    if experiment.folds is None:
        seeds = enumerate(experiment.seeds or ())
        return [Fold(f"seed-{seed}", None, seed, "split.csv", draw) for draw, seed in seeds]
    return [
        Fold(
            f"fold-{fold}" if draw == 0 else f"fold-{fold}-draw-{draw}",
            fold,
            experiment.seed + fold + draw * experiment.folds,
            f"fold-{fold}.csv",
            draw,
        )
        for draw in range(experiment.draws)
        for fold in range(experiment.folds)
    ]


def plan(experiment: Experiment) -> list[Job]:
    """List every job of an experiment, in the order in which they are started.

    The main budget is first, within a budget the first draw of every fold, and within a draw one
    fold after the other: an experiment that is stopped early has compared all methods on some
    folds, not some methods on all folds.

    Args:
        experiment: The experiment.

    Raises:
        UsageError: The configuration of a method is wrong.
    """
    jobs: dict[str, Job] = {}
    for masks in experiment.masks:
        for fold in list_folds(experiment):
            for method in experiment.methods:
                if masks in experiment.budgets(method) and _is_scheduled(method, fold):
                    _add(jobs, experiment, method, masks, fold)
    return list(jobs.values())


def select_runs(jobs: Sequence[Job]) -> list[Job]:
    """Select the jobs that are a run of a method."""
    return [job for job in jobs if not job.is_stage1]


def stage1_config(config: RunConfig) -> RunConfig:
    """Derive the configuration of a run's stage 1: options without effect on it are defaults.

    Where labels of slices are hidden with their masks, stage 1 depends on the masks.

    Args:
        config: Configuration of the run.
    """
    values: dict[str, Any] = config.model_dump()
    defaults = RunConfig().model_dump()
    defaults["split"]["label_unit"] = config.split.label_unit
    if config.split.label_unit in ("slab", "volume"):
        defaults["split"] = values["split"]
    for section in _STAGE2_SECTIONS:
        values[section] = defaults[section]
    for section, options in _STAGE2_OPTIONS.items():
        for option in options:
            values[section][option] = defaults[section][option]
    return RunConfig.model_validate(values)


def _add(
    jobs: dict[str, Job], experiment: Experiment, method: Method, masks: Budget, fold: Fold
) -> None:
    config = experiment.run_config(method, masks, fold.seed)
    if method.student_of is not None:
        inputs = _student_inputs(jobs, experiment, method, masks, fold)
    elif plain := _find_plain_method(experiment, config, masks, fold):
        # Its network includes a stage 1, so this run needs none of its own.
        _add(jobs, experiment, plain, masks, fold)
        inputs = {"stage2_run": _run_name(plain, masks, fold)}
        if (
            config.student is not None
            and config.model.requires_stage1
            and not config.model.contains_stage1
        ):
            inputs["stage1_run"] = _add_stage1(jobs, config, fold)
    elif config.model.requires_stage1:
        inputs = {"stage1_run": _add_stage1(jobs, config, fold)}
    else:
        inputs = {}
    name = _run_name(method, masks, fold)
    jobs[name] = Job(name, config, fold, method.name, masks, inputs)


def _add_stage1(jobs: dict[str, Job], config: RunConfig, fold: Fold) -> str:
    shared = stage1_config(config)
    values = shared.model_dump(mode="json") | {"seed": 0}
    for section, option in _LATER_OPTIONS:
        if not values[section][option]:
            del values[section][option]
    digest = sha256_json(values)
    name = f"{STAGE1}/{digest[:8]}/{fold.name}"
    jobs.setdefault(name, Job(name, shared, fold))
    return name


def _student_inputs(
    jobs: dict[str, Job], experiment: Experiment, method: Method, masks: Budget, fold: Fold
) -> dict[str, str]:
    """What a student needs: its teacher, and the stage 1 of a teacher that does not contain it."""
    teacher = experiment.teacher_of(method)
    _add(jobs, experiment, teacher, masks, fold)
    inputs = {"teacher": _run_name(teacher, masks, fold)}
    config = experiment.run_config(teacher, masks, fold.seed)
    if config.model.requires_stage1 and not config.model.contains_stage1:
        inputs["stage1_run"] = _add_stage1(jobs, config, fold)
    return inputs


def _find_plain_method(
    experiment: Experiment, config: RunConfig, masks: Budget, fold: Fold
) -> Method | None:
    """The method that one with further stages continues: the same up to stage 2."""
    if config.stages == ["stage2"]:
        return None
    plain = _until_stage2(config)
    for method in experiment.methods:
        if masks in experiment.budgets(method) and _is_scheduled(method, fold):
            other = experiment.run_config(method, masks, fold.seed)
            if other.stages == ["stage2"] and _until_stage2(other) == plain:
                return method
    return None


def _run_name(method: Method, masks: Budget, fold: Fold) -> str:
    return f"{method.folder}/{masks}-masks/{fold.name}"


def _until_stage2(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"method": "", "self_training": None, "student": None})


def _is_scheduled(method: Method, fold: Fold) -> bool:
    if fold.number is not None:
        in_draws = method.draws is None or fold.draw < method.draws
        return in_draws and (method.folds is None or fold.number in method.folds)
    return method.seeds is None or fold.seed in method.seeds
