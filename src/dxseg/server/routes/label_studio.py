"""Routes of an ML backend of Label Studio: predicted masks of cases, as brush masks."""

from __future__ import annotations

import asyncio
import secrets
from html.parser import HTMLParser
from typing import Annotated, Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from dxseg.data.exporters.brush_rle import encode_brush
from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.data.table.volumes import BAG_LEVELS
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files.table import model_name
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.server.case_prediction import predict_case
from dxseg.server.case_queue import CaseQueue
from dxseg.server.middleware import LABEL_STUDIO_HEALTH, LABEL_STUDIO_PREDICT, LABEL_STUDIO_SETUP
from dxseg.server.service import DATASET, IMAGE, Service, problems
from dxseg.server.telemetry import LOGGER

_TASKS = 1000
_CONFIG = 2**16
_WAIT = 0.02
"""Seconds between two checks of a full queue."""


class BackendHealth(BaseModel):
    """Status, as Label Studio expects it."""

    status: str = "UP"


class SetupRequest(BaseModel):
    """The labeling interface of a project. The address and token in the request are ignored."""

    label_config: str = Field(alias="schema", max_length=_CONFIG, description="XML.")


class SetupResponse(BaseModel):
    """The served model."""

    model_version: str = Field(description="First digits of the SHA-256 of the weights.")


class Task(BaseModel):
    """An image to predict."""

    data: dict[str, Any] = Field(description="`case_id`: of the served dataset.")


class TasksRequest(BaseModel):
    """Tasks of one project."""

    tasks: list[Task] = Field(min_length=1, max_length=_TASKS)
    label_config: str = Field(max_length=_CONFIG, description="XML.")


class BrushValue(BaseModel):
    """A mask in the format of Label Studio."""

    format: str = "rle"
    rle: list[int]
    brushlabels: list[str]


class Region(BaseModel):
    """A mask of one class."""

    id: str
    type: str = "brushlabels"
    from_name: str
    to_name: str
    original_width: int
    original_height: int
    image_rotation: int = 0
    value: BrushValue


class TaskPrediction(BaseModel):
    """The prediction for a task; no regions where the model finds nothing."""

    result: list[Region]
    score: float = Field(description="Confidence of the mask, 0 to 1.")
    model_version: str


class TasksResponse(BaseModel):
    """Predictions in the order of the tasks."""

    results: list[TaskPrediction | Annotated[list[TaskPrediction], Field(max_length=0)]] = Field(
        description="An empty list where a task cannot be predicted."
    )
    model_version: str


def add_label_studio_routes(app: FastAPI, service: Service, cases: CaseQueue) -> None:
    """Add the routes of the ML backend.

    Args:
        app: Gets the routes.
        service: The model.
        cases: Of the dataset of the tasks.
    """
    secret, refused = service.secret, service.refused

    @app.get(LABEL_STUDIO_HEALTH, responses=problems(*refused, 500), dependencies=secret)
    async def health() -> BackendHealth:
        """Report that the server runs."""
        return BackendHealth()

    @app.post(
        LABEL_STUDIO_SETUP,
        responses=problems(400, *refused, 408, 413, 422, 500),
        dependencies=secret,
    )
    async def setup(sent: SetupRequest) -> SetupResponse:
        """Check that a project's brush has the model's classes."""
        info = service.model.info
        read_brush(sent.label_config, info.mask_classes)
        return SetupResponse(model_version=model_name(info))

    @app.post(
        LABEL_STUDIO_PREDICT,
        responses=problems(400, *refused, 404, 408, 413, 422, 429, 500, 503),
        dependencies=secret,
    )
    async def predict(request: Request, sent: TasksRequest) -> TasksResponse:
        """Predict tasks; they wait for places in the queue, and leave half of it free."""
        model = service.model
        brush = read_brush(sent.label_config, model.info.mask_classes)
        slots = asyncio.Semaphore(max(1, service.settings.queue // 2))

        async def predict_task(task: Task) -> TaskPrediction | DxsegError:
            async with slots:
                try:
                    prediction = await _predict_case(task, service, model, cases)
                except DxsegError as error:
                    return error
                return await asyncio.to_thread(_to_regions, prediction, model.info, brush)

        async with service.with_timeout():
            found = await asyncio.gather(*(predict_task(task) for task in sent.tasks))
        failed = [one for one in found if isinstance(one, DxsegError)]
        if len(failed) == len(found):
            raise failed[0]
        if failed:
            fields = {"request_id": request.state.request_id, "tasks": len(failed)}
            LOGGER.warning("not predicted", extra={"fields": fields})
        return TasksResponse(
            results=[[] if isinstance(one, DxsegError) else one for one in found],
            model_version=model_name(model.info),
        )


async def _predict_case(
    task: Task, service: Service, model: Predictor, cases: CaseQueue
) -> Prediction:
    case_id = task.data.get("case_id")
    if not isinstance(case_id, str):
        raise UsageError(
            "case_id: missing in a task's data; make tasks with `dxseg export label-studio`"
        )
    with alias_in_errors(cases.root, DATASET):
        case = await asyncio.to_thread(cases.find, case_id)
        label = "" if case.row["label_level"] in BAG_LEVELS else case.row["label"]
        await _wait_for_place(service)
        await service.inspect_image(case.image, IMAGE)
        await _wait_for_place(service)
        return await predict_case(service, model, cases, case, label, return_image=False)


async def _wait_for_place(service: Service) -> None:
    while service.worker.full:
        await asyncio.sleep(_WAIT)


def _to_regions(prediction: Prediction, info: ModelInfo, brush: tuple[str, str]) -> TaskPrediction:
    height, width = prediction.mask.shape
    regions = [
        Region(
            id=secrets.token_hex(5),
            from_name=brush[0],
            to_name=brush[1],
            original_width=width,
            original_height=height,
            value=BrushValue(rle=encode_brush(prediction.mask == number), brushlabels=[name]),
        )
        for number, name in enumerate(info.mask_classes, 1)
        if (prediction.mask == number).any()
    ]
    return TaskPrediction(
        result=regions, score=prediction.confidence, model_version=model_name(info)
    )


def read_brush(label_config: str, mask_classes: list[str]) -> tuple[str, str]:
    """Find the brush in a project's labeling interface.

    Args:
        label_config: The XML. Only tags are parsed: no custom entities, nothing is loaded.
        mask_classes: Of the model.

    Returns:
        The names of the brush and of its image.

    Raises:
        UsageError: There is no brush, or it lacks a class.
    """
    tags = _BrushTags()
    tags.feed(label_config)
    tags.close()
    missing = sorted(set(mask_classes) - tags.labels)
    if not tags.brush or not tags.image or missing:
        raise UsageError(
            "label_config: expected a BrushLabels with name, toName and a Label for each of "
            f"{', '.join(mask_classes)}; use the labeling_config.xml of `dxseg export "
            "label-studio`"
        )
    return tags.brush, tags.image


class _BrushTags(HTMLParser):
    """The first BrushLabels and the labels in it."""

    def __init__(self) -> None:
        super().__init__()
        self.brush = self.image = ""
        self.labels: set[str] = set()
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "brushlabels" and not self.brush:
            self.brush, self.image = attributes.get("name", ""), attributes.get("toname", "")
            self._inside = True
        elif tag == "label" and self._inside:
            self.labels.add(attributes.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "brushlabels"
