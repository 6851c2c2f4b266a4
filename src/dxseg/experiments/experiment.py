"""The experiment file: what is trained, on which masks, what is compared, all fixed beforehand."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from dxseg.config.presets import Preset, load_config, merge
from dxseg.config.schema import RunConfig
from dxseg.errors import UsageError
from dxseg.evaluation.summary import MEANS
from dxseg.io.yaml import parse_yaml, read_small_text
from dxseg.metrics.statistics import RESAMPLES
from dxseg.training.student import student_config

Budget = Annotated[int, Field(strict=True, gt=0)] | Literal["all"]

_NAME = re.compile(r"\w[\w .,+()=%-]{0,79}", re.ASCII)
# What the experiment decides for each run; a change of it would make runs other than they are
# called.
_DECIDED = (("method",), ("seed",), ("split", "masks"), ("split", "split_seed"))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(_Strict):
    """One line of the comparison: a named method, perhaps with changes of its own.

    Attributes:
        name: In every table; a name alone means the method of that name.
        method: Of `recipes/methods.yaml`; the name if absent.
        student_of: Another method of the experiment, whose runs teach those of this one by
        distillation; it
            has their masks, folds and configuration.
        changes: Key `set`, nested values of the configuration; they win over those of the
        experiment.
        masks: Only these of the experiment's budgets.
        folds: Only these of the experiment's folds.
        seeds: Only these of the experiment's seeds.
    """

    name: str
    method: str
    student_of: str | None = None
    changes: dict[str, Any] = Field(default={}, alias="set")
    masks: tuple[Budget, ...] | None = Field(default=None, min_length=1)
    folds: tuple[int, ...] | None = Field(default=None, min_length=1)
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _a_name_is_enough(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value, "method": value}
        if isinstance(value, dict) and "name" in value:
            if "student_of" not in value:
                return {"method": value["name"]} | value
            if "method" in value:
                raise ValueError("give either method or student_of")
            return value | {"method": value["name"]}
        return value

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                "a name starts with a letter or digit and holds up to 80 letters, digits, blanks "
                "and _ . , + ( ) = % -"
            )
        if name.lower() == "stage1":
            raise ValueError("stage1 is the folder of what methods share; choose another name")
        return name

    @property
    def folder(self) -> str:
        """The name as that of a folder."""
        return re.sub(r"[^\w.-]+", "_", self.name, flags=re.ASCII).strip("_.").lower()


class Hypothesis(_Strict):
    """A difference that the experiment was made to show, stated before it ran.

    Attributes:
        method: Which method.
        against: Which other method.
        metric: A figure that is a mean over cases.
        margin: What the difference must reach, in the direction in which the metric is better.
        masks: Budget of the method; the experiment's first if absent.
        against_masks: Budget of the other; that of the method if absent.
    """

    method: str
    against: str
    metric: str = "dice_lesion"
    margin: float = Field(default=0.0, gt=-1e6, lt=1e6)
    masks: Budget | None = None
    against_masks: Budget | None = None

    @field_validator("metric")
    @classmethod
    def _is_a_mean(cls, metric: str) -> str:
        if metric not in MEANS:
            raise ValueError(f"expected one of {', '.join(MEANS)}")
        return metric


class Experiment(_Strict):
    """The content of an experiment file.

    Attributes:
        name: In every table.
        dataset: The dataset's folder, relative to the experiment file.
        preset: Of all methods.
        changes: Key `set`, nested values of the configuration of all methods.
        masks: Budgets of training masks, counts or "all"; the first is the main one.
        folds: Grouped cross-validation with so many folds; the seed is `seed` plus the fold.
        seeds: Instead of folds: seeds on one fixed split.
        splits: With seeds: a splits.csv, relative to the experiment file; drawn if absent.
        validation_share: With folds: the share of what is not tested that validates.
        seed: With folds: of the first fold.
        split_seed: Draws the folds or the split.
        methods: What is compared.
        reference: The method that the others are compared with.
        primary: The method that the experiment is about, named before any test case is looked at.
        hypotheses: What it is expected to show.
        resamples: Of the bootstrap.
    """

    name: str = Field(min_length=1, max_length=100)
    dataset: str = Field(min_length=1)
    preset: Preset = "cpu"
    changes: dict[str, Any] = Field(default={}, alias="set")
    masks: tuple[Budget, ...] = Field(default=("all",), min_length=1)
    folds: int | None = Field(default=None, ge=2, le=100)
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1)
    splits: str | None = None
    validation_share: float = Field(default=0.125, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**31 - 100)
    split_seed: int = Field(default=0, ge=0)
    methods: tuple[Method, ...] = Field(min_length=1)
    reference: str
    primary: str | None = None
    hypotheses: tuple[Hypothesis, ...] = ()
    resamples: int = Field(default=RESAMPLES, ge=100, le=1_000_000)

    @model_validator(mode="after")
    def _parts_are_named(self) -> Experiment:
        if (self.folds is None) == (self.seeds is None):
            raise ValueError("give either folds (cross-validation) or seeds (one fixed split)")
        if self.folds is not None and self.splits is not None:
            raise ValueError("splits goes with seeds; with folds the splits are drawn")
        _distinct("masks", self.masks)
        _distinct("seeds", self.seeds or ())
        _distinct("methods", [method.folder for method in self.methods])
        parts = {"masks": self.masks, "folds": range(self.folds or 0), "seeds": self.seeds or ()}
        for method in self.methods:
            for key, every in parts.items():
                _subset(method, key, getattr(method, key), every)
                if method.student_of is not None:
                    taught = getattr(self.teacher(method), key) or every
                    _subset(method, key, getattr(method, key) or every, taught)
        return self

    @model_validator(mode="after")
    def _comparisons_are_possible(self) -> Experiment:
        names = [method.name for method in self.methods]
        asked = [("reference", self.reference)]
        asked += [] if self.primary is None else [("primary", self.primary)]
        for hypothesis in self.hypotheses:
            asked += [("hypotheses", hypothesis.method), ("hypotheses", hypothesis.against)]
            for budget in (hypothesis.masks, hypothesis.against_masks):
                if budget is not None and budget not in self.masks:
                    raise ValueError(f"hypotheses: {budget} is none of masks {list(self.masks)}")
        for key, name in asked:
            if name not in names:
                raise ValueError(f"{key}: {name!r} is none of the methods {names}")
        return self

    @property
    def rising(self) -> list[Budget]:
        """The budgets, the smallest first; "all" is the largest."""
        return sorted(self.masks, key=lambda b: math.inf if b == "all" else b)

    def budgets(self, method: Method) -> tuple[Budget, ...]:
        """The budgets of a method, in the order of the experiment."""
        return tuple(b for b in self.masks if method.masks is None or b in method.masks)

    def config(self, method: Method, masks: Budget, seed: int) -> RunConfig:
        """The configuration of a run.

        Raises:
            UsageError: A change is of an unknown key, out of range, or of what the experiment
            decides.
        """
        if method.student_of is not None:
            return self._student_config(method, masks, seed)
        changes = merge(self.changes, method.changes)
        for path in _DECIDED:
            if _holds(changes, path):
                raise UsageError(
                    f"experiment {self.name!r}, method {method.name!r}: set holds "
                    f"{'.'.join(path)}, which the "
                    "experiment itself decides (masks, folds, seeds, seed, split_seed); leave it "
                    "out"
                )
        decided: dict[str, Any] = {
            "seed": seed,
            "split": {"masks": None if masks == "all" else masks, "split_seed": self.split_seed},
        }
        try:
            return load_config(self.preset, method.method, merge(changes, decided))
        except UsageError as error:
            raise UsageError(
                f"experiment {self.name!r}, method {method.name!r}: {error}"
            ) from error

    def teacher(self, method: Method) -> Method:
        """The method that teaches a student.

        Raises:
            ValueError: There is none, or it is a student itself.
        """
        others = {other.name: other for other in self.methods if other.student_of is None}
        if method.student_of not in others:
            raise ValueError(
                f"methods: {method.name!r}: student_of {method.student_of!r} is none of the "
                f"methods "
                f"{list(others)}"
            )
        return others[method.student_of]

    def _student_config(self, method: Method, masks: Budget, seed: int) -> RunConfig:
        try:
            return student_config(self.config(self.teacher(method), masks, seed), method.changes)
        except UsageError as error:
            raise UsageError(
                f"experiment {self.name!r}, method {method.name!r}: {error}"
            ) from error


def parse_experiment(text: str, source: str) -> Experiment:
    """Read the text of an experiment file.

    Args:
        text: YAML.
        source: The file to name in an error.

    Raises:
        UsageError: It is not YAML, or a key or value is wrong.
    """
    content = parse_yaml(text, source, UsageError)
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{source}: {_explain(error)}; see docs/compare.md") from error


def read_experiment_text(path: Path) -> str:
    """The text of an experiment file.

    Raises:
        UsageError: It is absent, a folder, not UTF-8, or larger than an experiment file can be.
    """
    return read_small_text(path, "an experiment file", UsageError)


def _explain(error: ValidationError, limit: int = 5) -> str:
    """One line a problem; values are left out, because aliases in YAML may be 10^9 long."""
    problems = []
    for problem in error.errors(include_url=False, include_input=False)[:limit]:
        place = ".".join(str(part) for part in problem["loc"])
        advice = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            advice = "unknown key"
        problems.append(f"{place}: {advice}" if place else advice)
    return "; ".join(problems)


def _distinct(key: str, values: Any) -> None:
    if len(set(values)) != len(values):
        raise ValueError(f"{key}: something comes twice in {list(values)}")


def _subset(method: Method, key: str, chosen: Any, every: Any) -> None:
    strangers = [value for value in chosen or () if value not in every]
    if strangers:
        raise ValueError(f"methods: {method.name!r}: {key} {strangers} are none of {list(every)}")


def _holds(tree: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True
