"""The experiment file: what is trained on which masks and what is compared, fixed beforehand."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from dxseg.config import Preset
from dxseg.config.mask_budget import parse_mask_budget
from dxseg.config.network import StrictConfig
from dxseg.config.presets import load_config, merge
from dxseg.config.schema import RunConfig
from dxseg.errors import UsageError
from dxseg.evaluation.summary import MEANS
from dxseg.evaluation.volume_summary import VOLUME_MEANS
from dxseg.io.yaml import parse_yaml, read_small_text
from dxseg.metrics.statistics import RESAMPLES
from dxseg.training.distillation import student_config

Budget = Literal["all"] | Annotated[int, BeforeValidator(parse_mask_budget), Field(strict=True)]

_NAME = re.compile(r"\w[\w .,+()=%-]{0,79}", re.ASCII)
# Set by the experiment for each run: `set` may not contain them.
_FIXED_KEYS = (("method",), ("seed",), ("split", "masks"), ("split", "split_seed"))


class Method(StrictConfig):
    """One line of the comparison: a method of `dxseg methods`, perhaps with overrides.

    In the file, a name alone stands for the method of that name.

    Attributes:
        name: Name in every table.
        base_method: Name in `config/methods.yaml`; default: `name`.
        student_of: Another method of the experiment, whose runs are the teachers of this one's by
            distillation; masks, folds and configuration are the teacher's.
        overrides: Key `set`: nested values of the configuration; they take precedence over those of
            the experiment.
        masks: Budgets of the experiment to which the method is restricted; default: all.
        folds: Folds to which it is restricted; default: all.
        seeds: Seeds to which it is restricted; default: all.
        draws: Number of draws per fold to which it is restricted; default: all.
    """

    name: str
    base_method: str
    student_of: str | None = None
    overrides: dict[str, Any] = Field(default={}, alias="set")
    masks: tuple[Budget, ...] | None = Field(default=None, min_length=1)
    folds: tuple[int, ...] | None = Field(default=None, min_length=1)
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1)
    draws: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _expand_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value, "base_method": value}
        if isinstance(value, dict) and "name" in value:
            if {"student_of", "base_method"} <= value.keys():
                raise ValueError("give either base_method or student_of")
            return {"base_method": value["name"]} | value
        return value

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                "a name starts with a letter or digit and contains up to 80 letters, digits, "
                "blanks and _ . , + ( ) = % -"
            )
        if name.lower() == "stage1":
            raise ValueError("stage1 is the folder that methods share; choose another name")
        return name

    @property
    def folder(self) -> str:
        """The name as the name of a folder."""
        return re.sub(r"[^\w.-]+", "_", self.name, flags=re.ASCII).strip("_.").lower()


class Hypothesis(StrictConfig):
    """A difference that the experiment is meant to show, stated before it runs.

    Attributes:
        method: Name of the method.
        against: Name of the method it is compared with.
        metric: A metric that is a mean over images or over volumes; not precision, which is
            undefined where a method finds nothing.
        margin: Smallest difference that meets the hypothesis, in the direction in which the metric
            is better.
        masks: Budget of the method; default: the experiment's first.
        against_masks: Budget of the other method; default: that of the method.
    """

    method: str
    against: str
    metric: str = "dice_lesion"
    margin: float = Field(default=0.0, gt=-1e6, lt=1e6)
    masks: Budget | None = None
    against_masks: Budget | None = None

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, metric: str) -> str:
        means = [name for name in (*MEANS, *VOLUME_MEANS) if not name.endswith("precision")]
        if metric not in means:
            raise ValueError(f"expected one of {', '.join(means)}")
        return metric


class Experiment(StrictConfig):
    """The content of an experiment file.

    Attributes:
        name: Name in every table.
        dataset: Folder of the dataset, relative to the experiment file.
        preset: Preset of all methods.
        overrides: Key `set`: nested values of the configuration of all methods.
        masks: Budgets of training masks, counts or "all"; the first is the main one.
        folds: Number of folds of the grouped cross-validation.
        draws: With folds: how often each fold is trained, with other masks and another
            initialization; draw d of fold f has the seed `seed` + f + d x `folds`.
        seeds: Instead of folds: seeds on one fixed split, each of which is a draw.
        splits: With seeds: a splits.csv, relative to the experiment file; default: made.
        validation_fraction: With folds: fraction of the cases outside the test fold that is used
            for validation.
        seed: With folds: seed of the first draw of the first fold.
        split_seed: Random seed of the folds or of the split.
        methods: The methods to compare.
        reference: The method that the others are compared with.
        primary: The method that the experiment is about, named before any test case is looked at.
        hypotheses: What the experiment is expected to show.
        resamples: Number of bootstrap resamples.
    """

    name: str = Field(min_length=1, max_length=100)
    dataset: str = Field(min_length=1)
    preset: Preset = "cpu"
    overrides: dict[str, Any] = Field(default={}, alias="set")
    masks: tuple[Budget, ...] = Field(default=("all",), min_length=1)
    folds: int | None = Field(default=None, ge=2, le=100)
    draws: int = Field(default=1, ge=1, le=20)
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1)
    splits: str | None = None
    validation_fraction: float = Field(default=0.125, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**31 - 2000)
    split_seed: int = Field(default=0, ge=0)
    methods: tuple[Method, ...] = Field(min_length=1)
    reference: str
    primary: str | None = None
    hypotheses: tuple[Hypothesis, ...] = ()
    resamples: int = Field(default=RESAMPLES, ge=100, le=1_000_000)

    @model_validator(mode="after")
    def _check_selections(self) -> Experiment:
        if (self.folds is None) == (self.seeds is None):
            raise ValueError("give either folds (cross-validation) or seeds (one fixed split)")
        if self.folds is not None and self.splits is not None:
            raise ValueError("splits requires seeds; with folds the splits are made")
        if self.draws > 1 and self.seeds is not None:
            raise ValueError("draws requires folds; with seeds, each seed is a draw")
        _check_distinct("masks", self.masks)
        _check_distinct("seeds", self.seeds or ())
        _check_distinct("methods", [method.folder for method in self.methods])
        every = {"masks": self.masks, "folds": range(self.folds or 0), "seeds": self.seeds or ()}
        for method in self.methods:
            teacher = method if method.student_of is None else self.teacher_of(method)
            most = min(self.draws, teacher.draws or self.draws)
            if method.draws is not None and method.draws > most:
                raise ValueError(f"methods: {method.name!r}: draws {method.draws} exceeds {most}")
            for key, values in every.items():
                _check_subset(method, key, getattr(method, key), values)
                if method.student_of is not None:
                    available = getattr(self.teacher_of(method), key) or values
                    _check_subset(method, key, getattr(method, key) or values, available)
        return self

    @model_validator(mode="after")
    def _check_comparisons(self) -> Experiment:
        names = [method.name for method in self.methods]
        compared = [("reference", self.reference)]
        compared += [] if self.primary is None else [("primary", self.primary)]
        for hypothesis in self.hypotheses:
            compared += [("hypotheses", hypothesis.method), ("hypotheses", hypothesis.against)]
            for budget in (hypothesis.masks, hypothesis.against_masks):
                if budget is not None and budget not in self.masks:
                    raise ValueError(f"hypotheses: {budget} is none of masks {list(self.masks)}")
        for key, name in compared:
            if name not in names:
                raise ValueError(f"{key}: {name!r} is none of the methods {names}")
        return self

    @property
    def ascending_masks(self) -> list[Budget]:
        """The budgets in ascending order; "all" is the largest."""
        return sorted(self.masks, key=lambda b: math.inf if b == "all" else b)

    def budgets(self, method: Method) -> tuple[Budget, ...]:
        """The budgets of a method, in the order of the experiment."""
        return tuple(b for b in self.masks if method.masks is None or b in method.masks)

    def run_config(self, method: Method, masks: Budget, seed: int) -> RunConfig:
        """Build the configuration of a run.

        Raises:
            UsageError: An override has an unknown key, is out of range, or sets what the experiment
                sets itself.
        """
        try:
            if method.student_of is not None:
                teacher = self.run_config(self.teacher_of(method), masks, seed)
                return student_config(teacher, method.overrides)
            overrides = merge(self.overrides, method.overrides)
            for path in _FIXED_KEYS:
                if _has_key(overrides, path):
                    raise UsageError(
                        f"set contains {'.'.join(path)}, which the experiment itself sets (masks, "
                        "folds, seeds, seed, split_seed); remove it"
                    )
            count = None if masks == "all" else masks
            fixed = {"seed": seed, "split": {"masks": count, "split_seed": self.split_seed}}
            return load_config(self.preset, method.base_method, merge(overrides, fixed))
        except UsageError as error:
            raise UsageError(
                f"experiment {self.name!r}, method {method.name!r}: {error}"
            ) from error

    def teacher_of(self, method: Method) -> Method:
        """Return the teacher of a student.

        Raises:
            ValueError: There is none, or it is a student itself.
        """
        others = {other.name: other for other in self.methods if other.student_of is None}
        if method.student_of not in others:
            raise ValueError(
                f"methods: {method.name!r}: student_of {method.student_of!r} is none of the "
                f"methods {list(others)}"
            )
        return others[method.student_of]


def parse_experiment(text: str, source: str) -> Experiment:
    """Parse the text of an experiment file.

    Args:
        text: YAML.
        source: The file that errors name.

    Raises:
        UsageError: It is not YAML, or a key or value is wrong.
    """
    content = parse_yaml(text, source, UsageError)
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{source}: {_format_errors(error)}; see docs/compare.md") from error
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error


def read_experiment_text(path: Path) -> str:
    """Read the text of an experiment file.

    Raises:
        UsageError: It is missing, a folder, not UTF-8, or larger than an experiment file can be.
    """
    return read_small_text(path, "an experiment file", UsageError)


def _format_errors(error: ValidationError, limit: int = 5) -> str:
    """One line per problem; values are left out, because aliases in YAML may expand to 10^9."""
    problems = []
    for problem in error.errors(include_url=False, include_input=False)[:limit]:
        location = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key"
        problems.append(f"{location}: {message}" if location else message)
    return "; ".join(problems)


def _check_distinct(key: str, values: Any) -> None:
    if len(set(values)) != len(values):
        raise ValueError(f"{key}: duplicate in {list(values)}")


def _check_subset(method: Method, key: str, chosen: Any, every: Any) -> None:
    unexpected = [value for value in chosen or () if value not in every]
    if unexpected:
        raise ValueError(f"methods: {method.name!r}: {key} {unexpected} are none of {list(every)}")


def _has_key(tree: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True
