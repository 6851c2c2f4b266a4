"""Which runs a study consists of, and which run needs the folder of which other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dxseg.config import RunConfig
from dxseg.data.files import sha256_json
from dxseg.studies.study import Arm, Budget, Study

STAGE1 = "stage1"
"""Folder of the classifiers that runs share, beside the folders of the arms."""

# Knobs that stage 1 does not see: runs that differ in nothing else share it. A knob that is not
# named here counts as one that stage 1 sees, which costs time but mixes nothing up.
_STAGE2_SECTIONS = (
    *("arm", "split", "stage2", "selftraining"),
    *("gate_sensitivity", "rule_in_specificity"),
)
_STAGE2_KNOBS = {
    "model": (
        "architecture",
        "skips",
        "encoder_init",
        "coarse_init",
        "coarse_learning_rate_scale",
        "shared_stages",
        "label_head",
    ),
    "data": ("lesion_free_share", "known_label_share"),
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
    """One piece of work: a stage 1, or a run of an arm.

    Attributes:
        name: Also its folder, below that of all runs.
        config: Of the run.
        part: What it is trained and tested on.
        arm: The study's name of the arm; None for a stage 1.
        masks: Its budget; None for a stage 1.
        inputs: Which argument of `train_run` gets the folder of which other job; of
            `train_student` if there is a teacher among them.
    """

    name: str
    config: RunConfig
    part: Part
    arm: str | None = None
    masks: Budget | None = None
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def is_stage1(self) -> bool:
        """Whether the job trains a classifier that runs of several arms use."""
        return self.arm is None


def parts(study: Study) -> list[Part]:
    """The divisions of a study, each with its seed."""
    if study.folds is not None:
        return [
            Part(f"fold-{fold}", fold, study.seed + fold, f"fold-{fold}.csv")
            for fold in range(study.folds)
        ]
    return [Part(f"seed-{seed}", None, seed, "split.csv") for seed in study.seeds or ()]


def plan(study: Study) -> list[Job]:
    """Every job of a study, in the order in which they are started.

    The main budget comes first, and of a budget one part after the other: a study that is stopped
    early has compared all arms on some folds, not some arms on all folds.

    Args:
        study: What to do.

    Raises:
        UsageError: The configuration of an arm is wrong.
    """
    jobs: dict[str, Job] = {}
    for masks in study.masks:
        for part in parts(study):
            for arm in study.arms:
                if masks in study.budgets(arm) and _takes_part(arm, part):
                    _add(jobs, study, arm, masks, part)
    return list(jobs.values())


def _add(jobs: dict[str, Job], study: Study, arm: Arm, masks: Budget, part: Part) -> None:
    config = study.config(arm, masks, part.seed)
    name = _run_name(arm, masks, part)
    if arm.student_of is not None:
        jobs[name] = Job(
            name, config, part, arm.name, masks, _taught(jobs, study, arm, masks, part)
        )
        return
    inputs = {}
    if config.model.needs_stage1:
        inputs["stage1_run"] = _add_stage1(jobs, config, part)
    if config.selftraining is not None:
        _add_stage2(jobs, inputs, study, config, masks, part)
    jobs[name] = Job(name, config, part, arm.name, masks, inputs)


def _add_stage1(jobs: dict[str, Job], config: RunConfig, part: Part) -> str:
    first = stage1_config(config)
    digest = sha256_json(first.model_dump(mode="json") | {"seed": 0})
    shared = f"{STAGE1}/{digest[:8]}/{part.name}"
    jobs.setdefault(shared, Job(shared, first, part))
    return shared


def _taught(
    jobs: dict[str, Job], study: Study, arm: Arm, masks: Budget, part: Part
) -> dict[str, str]:
    """What a student builds on: its teacher, and of one with one branch the stage 1 as well."""
    teacher = study.teacher(arm)
    _add(jobs, study, teacher, masks, part)
    inputs = {"teacher": _run_name(teacher, masks, part)}
    config = study.config(teacher, masks, part.seed)
    if config.model.needs_stage1 and not config.model.prompted:
        inputs["stage1_run"] = _add_stage1(jobs, config, part)
    return inputs


def _add_stage2(
    jobs: dict[str, Job],
    inputs: dict[str, str],
    study: Study,
    config: RunConfig,
    masks: Budget,
    part: Part,
) -> None:
    """Let self-training go on from the run of an arm that is the same without it, if there is one.

    Such a run takes its stage 1 from that run's network, so it needs none of its own.
    """
    plain = _but_for_selftraining(config)
    for arm in study.arms:
        if masks in study.budgets(arm) and _takes_part(arm, part):
            other = study.config(arm, masks, part.seed)
            if other.selftraining is None and _but_for_selftraining(other) == plain:
                _add(jobs, study, arm, masks, part)
                inputs.clear()
                inputs["stage2_run"] = _run_name(arm, masks, part)
                return


def _run_name(arm: Arm, masks: Budget, part: Part) -> str:
    return f"{arm.folder}/{masks}-masks/{part.name}"


def _but_for_selftraining(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"arm": "", "selftraining": None})


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
    """The jobs that are a run of an arm."""
    return [job for job in jobs if not job.is_stage1]


def _takes_part(arm: Arm, part: Part) -> bool:
    if part.number is not None:
        return arm.folds is None or part.number in arm.folds
    return arm.seeds is None or part.seed in arm.seeds
