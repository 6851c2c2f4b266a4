"""The study file: what is trained, on which masks, what is compared, all fixed beforehand."""

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

from dxseg.config import RunConfig
from dxseg.errors import UsageError
from dxseg.evaluation.summary import MEANS
from dxseg.metrics.statistics import RESAMPLES
from dxseg.presets import Preset, load_config, merge
from dxseg.training.student import student_config
from dxseg.yaml_files import parse_yaml, read_small_text

Budget = Annotated[int, Field(strict=True, gt=0)] | Literal["all"]

_NAME = re.compile(r"\w[\w .,+()=%-]{0,79}", re.ASCII)
# What the study decides for each run; a change of it would make runs other than they are called.
_DECIDED = (("arm",), ("seed",), ("split", "masks"), ("split", "split_seed"))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Arm(_Strict):
    """One line of the comparison: a named arm, perhaps with changes of its own.

    Attributes:
        name: In every table; a name alone means the arm of that name.
        arm: Of `recipes/arms.yaml`; the name if absent.
        student_of: Another arm of the study, whose runs teach those of this one by distillation; it
            has their masks, folds and configuration.
        changes: Key `set`, nested values of the configuration; they win over those of the study.
        masks: Only these of the study's budgets.
        folds: Only these of the study's folds.
        seeds: Only these of the study's seeds.
    """

    name: str
    arm: str
    student_of: str | None = None
    changes: dict[str, Any] = Field(default={}, alias="set")
    masks: tuple[Budget, ...] | None = Field(default=None, min_length=1)
    folds: tuple[int, ...] | None = Field(default=None, min_length=1)
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _a_name_is_enough(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value, "arm": value}
        if isinstance(value, dict) and "name" in value:
            if "student_of" not in value:
                return {"arm": value["name"]} | value
            if "arm" in value:
                raise ValueError("give either arm or student_of")
            return value | {"arm": value["name"]}
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
            raise ValueError("stage1 is the folder of what arms share; choose another name")
        return name

    @property
    def folder(self) -> str:
        """The name as that of a folder."""
        return re.sub(r"[^\w.-]+", "_", self.name, flags=re.ASCII).strip("_.").lower()


class Hypothesis(_Strict):
    """A difference that the study was made to show, stated before it ran.

    Attributes:
        arm: Which arm.
        against: Which other arm.
        metric: A figure that is a mean over cases.
        margin: What the difference must reach, in the direction in which the metric is better.
        masks: Budget of the arm; the study's first if absent.
        against_masks: Budget of the other; that of the arm if absent.
    """

    arm: str
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


class Study(_Strict):
    """The content of a study file.

    Attributes:
        name: In every table.
        dataset: The dataset's folder, relative to the study file.
        preset: Of all arms.
        changes: Key `set`, nested values of the configuration of all arms.
        masks: Budgets of training masks, counts or "all"; the first is the main one.
        folds: Grouped cross-validation with so many folds; the seed is `seed` plus the fold.
        seeds: Instead of folds: seeds on one fixed split.
        splits: With seeds: a splits.csv, relative to the study file; drawn if absent.
        validation_share: With folds: the share of what is not tested that validates.
        seed: With folds: of the first fold.
        split_seed: Draws the folds or the split.
        arms: What is compared.
        reference: The arm that the others are compared with.
        primary: The arm that the study is about, named before any test case is looked at.
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
    arms: tuple[Arm, ...] = Field(min_length=1)
    reference: str
    primary: str | None = None
    hypotheses: tuple[Hypothesis, ...] = ()
    resamples: int = Field(default=RESAMPLES, ge=100, le=1_000_000)

    @model_validator(mode="after")
    def _parts_are_named(self) -> Study:
        if (self.folds is None) == (self.seeds is None):
            raise ValueError("give either folds (cross-validation) or seeds (one fixed split)")
        if self.folds is not None and self.splits is not None:
            raise ValueError("splits goes with seeds; with folds the splits are drawn")
        _distinct("masks", self.masks)
        _distinct("seeds", self.seeds or ())
        _distinct("arms", [arm.folder for arm in self.arms])
        parts = {"masks": self.masks, "folds": range(self.folds or 0), "seeds": self.seeds or ()}
        for arm in self.arms:
            for key, every in parts.items():
                _subset(arm, key, getattr(arm, key), every)
                if arm.student_of is not None:
                    taught = getattr(self.teacher(arm), key) or every
                    _subset(arm, key, getattr(arm, key) or every, taught)
        return self

    @model_validator(mode="after")
    def _comparisons_are_possible(self) -> Study:
        names = [arm.name for arm in self.arms]
        asked = [("reference", self.reference)]
        asked += [] if self.primary is None else [("primary", self.primary)]
        for hypothesis in self.hypotheses:
            asked += [("hypotheses", hypothesis.arm), ("hypotheses", hypothesis.against)]
            for budget in (hypothesis.masks, hypothesis.against_masks):
                if budget is not None and budget not in self.masks:
                    raise ValueError(f"hypotheses: {budget} is none of masks {list(self.masks)}")
        for key, name in asked:
            if name not in names:
                raise ValueError(f"{key}: {name!r} is none of the arms {names}")
        return self

    @property
    def rising(self) -> list[Budget]:
        """The budgets, the smallest first; "all" is the largest."""
        return sorted(self.masks, key=lambda b: math.inf if b == "all" else b)

    def budgets(self, arm: Arm) -> tuple[Budget, ...]:
        """The budgets of an arm, in the order of the study."""
        return tuple(b for b in self.masks if arm.masks is None or b in arm.masks)

    def config(self, arm: Arm, masks: Budget, seed: int) -> RunConfig:
        """The configuration of a run.

        Raises:
            UsageError: A change is of an unknown key, out of range, or of what the study decides.
        """
        if arm.student_of is not None:
            return self._student_config(arm, masks, seed)
        changes = merge(self.changes, arm.changes)
        for path in _DECIDED:
            if _holds(changes, path):
                raise UsageError(
                    f"study {self.name!r}, arm {arm.name!r}: set holds {'.'.join(path)}, which the "
                    "study itself decides (masks, folds, seeds, seed, split_seed); leave it out"
                )
        decided: dict[str, Any] = {
            "seed": seed,
            "split": {"masks": None if masks == "all" else masks, "split_seed": self.split_seed},
        }
        try:
            return load_config(self.preset, arm.arm, merge(changes, decided))
        except UsageError as error:
            raise UsageError(f"study {self.name!r}, arm {arm.name!r}: {error}") from error

    def teacher(self, arm: Arm) -> Arm:
        """The arm that teaches a student.

        Raises:
            ValueError: There is none, or it is a student itself.
        """
        others = {other.name: other for other in self.arms if other.student_of is None}
        if arm.student_of not in others:
            raise ValueError(
                f"arms: {arm.name!r}: student_of {arm.student_of!r} is none of the arms "
                f"{list(others)}"
            )
        return others[arm.student_of]

    def _student_config(self, arm: Arm, masks: Budget, seed: int) -> RunConfig:
        try:
            return student_config(self.config(self.teacher(arm), masks, seed), arm.changes)
        except UsageError as error:
            raise UsageError(f"study {self.name!r}, arm {arm.name!r}: {error}") from error


def parse_study(text: str, source: str) -> Study:
    """Read the text of a study file.

    Args:
        text: YAML.
        source: The file to name in an error.

    Raises:
        UsageError: It is not YAML, or a key or value is wrong.
    """
    content = parse_yaml(text, source, UsageError)
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{source}: {_explain(error)}; see docs/compare.md") from error


def read_study_text(path: Path) -> str:
    """The text of a study file.

    Raises:
        UsageError: It is absent, a folder, not UTF-8, or larger than a study file can be.
    """
    return read_small_text(path, "a study file", UsageError)


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


def _subset(arm: Arm, key: str, chosen: Any, every: Any) -> None:
    strangers = [value for value in chosen or () if value not in every]
    if strangers:
        raise ValueError(f"arms: {arm.name!r}: {key} {strangers} are none of {list(every)}")


def _holds(tree: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True
