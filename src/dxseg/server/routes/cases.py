"""Routes of a dataset: its cases without a mask, the prediction for one, and saving a mask."""

from __future__ import annotations

import asyncio
from typing import Annotated

import numpy as np
from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, Field, NonNegativeInt

from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.data.readers.masks import Mask
from dxseg.data.table.annotations import Role, save_mask
from dxseg.errors import UsageError
from dxseg.inference.files.table import model_name
from dxseg.inference.label_prompt import parse_label_prompt
from dxseg.server.case_queue import CaseQueue
from dxseg.server.middleware import CASE, QUEUE, SAVE
from dxseg.server.schemas import (
    CaseResponse,
    CocoRLE,
    PredictionResponse,
    describe_case,
    describe_prediction,
)
from dxseg.server.service import Service, problems
from dxseg.server.uploads import check_pixels

# Names of a folder and a file in messages: their own may contain a patient's name.
_DATASET, _IMAGE = "the dataset", "the image"


CaseId = Annotated[str, Field(max_length=200)]
"""As `cases.csv` allows it."""


class PendingCaseOut(BaseModel):
    """A case without a mask."""

    case_id: str
    label: str = Field(description='As the dataset has it; "" for none.')
    score: float | None = Field(description="In the table of suggestions; null without one.")


class QueueResponse(BaseModel):
    """Cases without a mask, the next one first."""

    waiting: int = Field(description="Total number of cases without a mask.")
    cases: list[PendingCaseOut]


class CaseRequest(BaseModel):
    """Which case to predict."""

    case_id: CaseId
    label_prompt: str = Field("", description="The image's label where it is known.")


class SaveRequest(BaseModel):
    """A mask that was drawn or corrected."""

    case_id: CaseId
    role: Role = Field(description="Of the annotator. Names are not stored.")
    mask: dict[str, CocoRLE] = Field(
        description="By class, all of the model's; no pixel in two of them."
    )
    previous: str = Field(
        "", description="The case's mask as in `case.mask`; any other mask is not replaced."
    )
    label_prompt: str = Field("", description="The label prompt of the prediction.")


class SaveResponse(BaseModel):
    """The saved mask."""

    case: CaseResponse
    time: str = Field(description="UTC, ISO 8601.")
    pixels: dict[str, NonNegativeInt] = Field(description="Of the mask, by class.")
    waiting: int = Field(description="Number of cases still without a mask.")


def add_case_routes(app: FastAPI, service: Service, cases: CaseQueue) -> None:
    """Add the routes of a dataset.

    Args:
        app: Gets the routes.
        service: The model.
        cases: Of the dataset.
    """
    info, secret, refused = service.info, service.secret, service.refused

    @app.get(QUEUE, responses=problems(*refused, 422, 500), dependencies=secret)
    async def queue(
        limit: Annotated[int, Query(ge=1, le=1000, description="Cases at most.")] = 100,
    ) -> QueueResponse:
        """List the cases without a mask."""
        with alias_in_errors(cases.root, _DATASET):
            waiting = await asyncio.to_thread(cases.waiting)
        listed = [PendingCaseOut(**vars(case)) for case in waiting[:limit]]
        return QueueResponse(waiting=len(waiting), cases=listed)

    @app.post(
        CASE,
        responses=problems(400, *refused, 404, 408, 413, 422, 429, 500, 503),
        dependencies=secret,
    )
    async def predict_case(request: Request, sent: CaseRequest) -> PredictionResponse:
        """Segment the image of a case; returns class activation maps and the image too."""
        async with service.with_timeout():
            with alias_in_errors(cases.root, _DATASET):
                case = await asyncio.to_thread(cases.find, sent.case_id)
                await service.inspect_image(case.image, _IMAGE)
                prediction = await service.predict(
                    case.image, sent.label_prompt, _IMAGE, return_image=True
                )
            return await asyncio.to_thread(
                describe_prediction,
                prediction,
                info,
                request_id=request.state.request_id,
                spacing=case.spacing,
                evidence=True,
                case=describe_case(case.row),
            )

    @app.post(
        SAVE, responses=problems(400, *refused, 404, 408, 409, 413, 422, 500), dependencies=secret
    )
    async def save(sent: SaveRequest) -> SaveResponse:
        """Save a mask into the dataset, with role and time."""
        parse_label_prompt(sent.label_prompt, info)
        mask = await asyncio.to_thread(_label_map, sent.mask, service)
        with alias_in_errors(cases.root, _DATASET):
            done = await asyncio.to_thread(
                save_mask,
                cases.root,
                sent.case_id,
                mask,
                sent.role,
                previous=sent.previous,
                model=model_name(info),
                known=sent.label_prompt,
            )
            case = await asyncio.to_thread(cases.find, sent.case_id)
            waiting = await asyncio.to_thread(cases.waiting)
        counts = np.bincount(mask.ravel(), minlength=len(info.mask_classes) + 1)[1:].tolist()
        return SaveResponse(
            case=describe_case(case.row),
            time=done.time,
            pixels=dict(zip(info.mask_classes, counts, strict=True)),
            waiting=len(waiting),
        )


def _label_map(sent: dict[str, CocoRLE], service: Service) -> Mask:
    """Combine the run lengths of all classes into one label map.

    Raises:
        TooLargeError: It has more pixels than the server takes.
        UsageError: Classes are missing, unknown, of different sizes or overlap, or the runs do not
            fill the image.
    """
    classes = service.info.mask_classes
    if set(sent) != set(classes):
        raise UsageError(f"mask: classes {sorted(sent)[:10]}; expected {', '.join(classes)}")
    sizes = {runs.size for runs in sent.values()}
    if len(sizes) > 1:
        raise UsageError("mask: classes of different sizes; expected one size for all")
    height, width = size = sizes.pop()
    check_pixels("mask", size, service.settings.max_pixels)
    column_wise = np.zeros(height * width, np.uint8)
    for number, name in enumerate(classes, 1):
        counts = sent[name].counts
        if sum(counts) != column_wise.size:
            raise UsageError(
                f"mask: {name}: runs of {sum(counts)} pixels in all; expected "
                f"{height} x {width} = {column_wise.size}"
            )
        drawn = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        if column_wise[drawn].any():
            raise UsageError(f"mask: {name}: overlaps another class; expected each pixel in one")
        column_wise[drawn] = number
    return np.ascontiguousarray(column_wise.reshape((height, width), order="F"))
