"""The model card of a run: its training, its test results and its limits.

It is filled in from `run.json`, `evaluation.json` and `model.json`. Only the keys listed here are
read: no path, case or computer can get into it.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dxseg.errors import DxsegError, UsageError
from dxseg.inference.model_info import NOTICE, ModelInfo
from dxseg.reports.metric_columns import (
    IMAGE_METRICS,
    MASK_METRICS,
    VOLUME_METRICS,
    MetricColumn,
    format_interval,
    format_number,
)
from dxseg.training.run_record import RUN_FILE

CARD_FILE = "README.md"
EVALUATION_FILE = "evaluation.json"
_TEMPLATE = "export/model_card.md.jinja"
_MARKUP = re.compile(r"([\\`*_\[\]<>#|~&$!{}])")
_Model = TypeVar("_Model", bound=BaseModel)
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Calibration(BaseModel):
    temperature: float
    images: int
    ece_before: float | None = None
    ece_after: float | None = None
    note: str = ""


class _Calibrations(BaseModel):
    labels: _Calibration
    masks: _Calibration


class _Record(BaseModel):
    """The keys of `run.json` that may be published."""

    method: str
    seed: int
    dataset_name: str
    dataset_digest: _Digest
    splits_sha256: _Digest
    cases: dict[str, int]
    parameters: int
    calibration: _Calibrations
    versions: dict[str, str]
    finished: datetime


class _Evaluation(BaseModel):
    """The keys of `evaluation.json` that may be published; the figures are extra keys."""

    model_config = ConfigDict(extra="allow")

    split: str
    label_prompts: bool
    averaged_by: str
    counts: dict[str, Any]
    units: dict[str, str | float]
    splits_sha256: _Digest
    weights_sha256: _Digest

    def figure(self, key: str) -> Any:
        return (self.model_extra or {}).get(key)


def model_card(run: Path, info: ModelInfo) -> str:
    """Write a model card as the Hugging Face Hub reads it: YAML, then Markdown.

    Args:
        run: Folder of a run that is trained and evaluated on its test images.
        info: Of its model.

    Raises:
        UsageError: The extra is not installed.
        DxsegError: A file is absent or damaged, or the evaluation is of another model.
    """
    try:
        from huggingface_hub import EvalResult, ModelCard, ModelCardData
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the model card needs {error.name}, which is not installed; pip install 'dxseg[hub]'"
        ) from error
    record = _read(_Record, run / RUN_FILE, "train the run again")
    evaluation = _read(_Evaluation, run / EVALUATION_FILE, f"run `dxseg evaluate {run}`")
    _check_same_model(evaluation, record, info, run)
    name = f"{record.method} on {record.dataset_name}"
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=re.sub(r"\W+", "-", record.dataset_name.lower()).strip("-") or "unnamed",
            dataset_name=record.dataset_name,
            dataset_split=evaluation.split,
            dataset_revision=record.dataset_digest,
            dataset_args={"splits_sha256": record.splits_sha256},
            metric_type=figure.key,
            metric_name=_title(figure, evaluation),
            metric_value=round(evaluation.figure(figure.key), 6),
        )
        for figure in _shown(evaluation)
    ]
    data = ModelCardData(
        library_name="dxseg",
        pipeline_tag="image-segmentation",
        tags=["medical", "image-segmentation", "dxseg"],
        model_name=name,
        eval_results=results,
    )
    template = (resources.files("dxseg") / _TEMPLATE).read_text(encoding="utf-8")
    card = ModelCard.from_template(
        data, template_str=template, **_context(name, record, evaluation, info)
    )
    return str(card).rstrip() + "\n"


def plain(text: str) -> str:
    """Escape an untrusted text as one line of Markdown.

    Args:
        text: For example the name of a dataset.
    """
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def _read(kind: type[_Model], path: Path, remedy: str) -> _Model:
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DxsegError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DxsegError(f"{path}: {place}: {first['msg']}; {remedy}") from error
    except ValueError as error:
        raise DxsegError(f"{path}: not valid JSON ({error}); {remedy}") from error


def _check_same_model(evaluation: _Evaluation, record: _Record, info: ModelInfo, run: Path) -> None:
    same = (
        evaluation.weights_sha256 == info.weights_sha256
        and evaluation.splits_sha256 == record.splits_sha256
        and evaluation.split == "test"
        and not evaluation.label_prompts
    )
    if not same:
        raise DxsegError(
            f"{run / EVALUATION_FILE}: is not of this model on its test images without label "
            f"prompts; run `dxseg evaluate {run}`"
        )


def _shown(evaluation: _Evaluation) -> list[MetricColumn]:
    return [
        figure
        for figure in (*VOLUME_METRICS, *MASK_METRICS, *IMAGE_METRICS)
        if isinstance(evaluation.figure(figure.key), int | float)
    ]


def _title(figure: MetricColumn, evaluation: _Evaluation) -> str:
    return figure.title.format_map(evaluation.units).replace("mm2", "mm²")


def _context(
    name: str, record: _Record, evaluation: _Evaluation, info: ModelInfo
) -> dict[str, Any]:
    figures = [
        (
            _title(one, evaluation),
            format_number(evaluation.figure(one.key), one.decimals),
            format_interval(evaluation.figure(f"{one.key}_ci"), one.decimals),
            one.better,
            one.description,
        )
        for one in _shown(evaluation)
    ]
    calibration = [
        (
            plain(what),
            format_number(one.temperature, 3),
            one.images,
            format_number(one.ece_before, 3),
            format_number(one.ece_after, 3),
            plain(one.note),
        )
        for what, one in record.calibration
    ]
    return {
        "name": plain(name),
        "notice": NOTICE,
        "dataset": plain(record.dataset_name),
        "record": record,
        "method": plain(record.method),
        "evaluation": evaluation,
        "figures": figures,
        "calibration": calibration,
        "info": info,
        "labels": ", ".join(plain(label) for label in info.labels),
        "lesion_free": ", ".join(plain(label) for label in info.lesion_free),
        "mask_classes": ", ".join(plain(one) for one in info.mask_classes),
        "versions": ", ".join(f"{plain(k)} {plain(v)}" for k, v in record.versions.items()),
    }
