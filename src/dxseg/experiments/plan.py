"""Which runs an experiment consists of, and which run needs the folder of which other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dxseg.config.schema import RunConfig
from dxseg.experiments.experiment import Budget, Experiment, Method
from dxseg.io.atomic import sha256_json

STAGE1 = "stage1"
"""Folder of the classifiers that runs share, beside the folders of the methods."""

# Knobs that stage 1 does not see: runs that differ in nothing else share it. A knob that is not
# named here counts as one that stage 1 sees, which costs time but mixes nothing up.
_STAGE2_SECTIONS = (
    *("method", "split", "stage2", "self_training"),
    *("rule_out_sensitivity", "rule_in_specificity"),
)
_STAGE2_KNOBS = {
    "model": (
        "architecture",
        "skips",
        "encoder_init",
        "coarse_init",
        "coarse_learning_rate_scale",
        "shared_encoder_levels",
        "label_head",
    ),
    "data": ("lesion_free_fraction", "label_prompt_prob"),
}


@dataclass(frozen=True)
class Part:
    """One division of the cases and the seed that goes with it.

    Attributes:
        name: Of folders and files, such as `fold-0` or `seed-0`.
        number: Of the fold; None on a fixed split.
        seed: Of the run.
        splits: Name of the file of splits.
    """

    name: str
    number: int | None
    seed: int
    splits: str


@dataclass(frozen=True)
class Job:
    """One piece of work: a stage 1, or a run of a method.

    Attributes:
        name: Also its folder, below that of all runs.
        config: Of the run.
        part: What it is trained and tested on.
        method: The experiment's name of the method; None for a stage 1.
        masks: Its budget; None for a stage 1.
        inputs: Which argument of `train_run` gets the folder of which other job; of
            `train_student` if there is a teacher among them.
    """

    name: str
    config: RunConfig
    part: Part
    method: str | None = None
    masks: Budget | None = None
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def is_stage1(self) -> bool:
        """Whether the job trains a classifier that runs of several methods use."""
        return self.method is None


def parts(experiment: Experiment) -> list[Part]:
    """The divisions of an experiment, each with its seed."""
    if experiment.folds is not None:
        return [
            Part(f"fold-{fold}", fold, experiment.seed + fold, f"fold-{fold}.csv")
            for fold in range(experiment.folds)
        ]
    return [Part(f"seed-{seed}", None, seed, "split.csv") for seed in experiment.seeds or ()]


def plan(experiment: Experiment) -> list[Job]:
    """Every job of an experiment, in the order in which they are started.

    The main budget comes first, and of a budget one part after the other: an experiment that is
    stopped early has compared all methods on some folds, not some methods on all folds.

    Args:
        experiment: What to do.

    Raises:
        UsageError: The configuration of a method is wrong.
    """
    jobs: dict[str, Job] = {}
    for masks in experiment.masks:
        for part in parts(experiment):
            for method in experiment.methods:
                if masks in experiment.budgets(method) and _is_scheduled(method, part):
                    _add(jobs, experiment, method, masks, part)
    return list(jobs.values())


def _add(
    jobs: dict[str, Job], experiment: Experiment, method: Method, masks: Budget, part: Part
) -> None:
    config = experiment.config(method, masks, part.seed)
    name = _run_name(method, masks, part)
    if method.student_of is not None:
        jobs[name] = Job(
            name, config, part, method.name, masks, _taught(jobs, experiment, method, masks, part)
        )
        return
    inputs = {}
    if config.model.requires_stage1:
        inputs["stage1_run"] = _add_stage1(jobs, config, part)
    if config.self_training is not None:
        _add_stage2(jobs, inputs, experiment, config, masks, part)
    jobs[name] = Job(name, config, part, method.name, masks, inputs)


def _add_stage1(jobs: dict[str, Job], config: RunConfig, part: Part) -> str:
    first = stage1_config(config)
    digest = sha256_json(first.model_dump(mode="json") | {"seed": 0})
    shared = f"{STAGE1}/{digest[:8]}/{part.name}"
    jobs.setdefault(shared, Job(shared, first, part))
    return shared


def _taught(
    jobs: dict[str, Job], experiment: Experiment, method: Method, masks: Budget, part: Part
) -> dict[str, str]:
    """What a student builds on: its teacher, and of one with one branch the stage 1 as well."""
    teacher = experiment.teacher(method)
    _add(jobs, experiment, teacher, masks, part)
    inputs = {"teacher": _run_name(teacher, masks, part)}
    config = experiment.config(teacher, masks, part.seed)
    if config.model.requires_stage1 and not config.model.prompted:
        inputs["stage1_run"] = _add_stage1(jobs, config, part)
    return inputs


def _add_stage2(
    jobs: dict[str, Job],
    inputs: dict[str, str],
    experiment: Experiment,
    config: RunConfig,
    masks: Budget,
    part: Part,
) -> None:
    """Start self-training from the run of the same method without it, if there is one.

    Such a run takes its stage 1 from that run's network, so it needs none of its own.
    """
    plain = _without_self_training(config)
    for method in experiment.methods:
        if masks in experiment.budgets(method) and _is_scheduled(method, part):
            other = experiment.config(method, masks, part.seed)
            if other.self_training is None and _without_self_training(other) == plain:
                _add(jobs, experiment, method, masks, part)
                inputs.clear()
                inputs["stage2_run"] = _run_name(method, masks, part)
                return


def _run_name(method: Method, masks: Budget, part: Part) -> str:
    return f"{method.folder}/{masks}-masks/{part.name}"


def _without_self_training(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"method": "", "self_training": None})


def stage1_config(config: RunConfig) -> RunConfig:
    """The configuration of the stage 1 of a run: what stage 1 does not see has its default.

    Args:
        config: Of a run.
    """
    values: dict[str, Any] = config.model_dump()
    defaults = RunConfig().model_dump()
    for section in _STAGE2_SECTIONS:
        values[section] = defaults[section]
    for section, knobs in _STAGE2_KNOBS.items():
        for knob in knobs:
            values[section][knob] = defaults[section][knob]
    return RunConfig.model_validate(values)


def runs(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that are a run of a method."""
    return [job for job in jobs if not job.is_stage1]


def _is_scheduled(method: Method, part: Part) -> bool:
    if part.number is not None:
        return method.folds is None or part.number in method.folds
    return method.seeds is None or part.seed in method.seeds
