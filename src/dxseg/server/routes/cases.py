"""The routes of a dataset: which cases wait for a mask, a proposal for one, and saving."""

from __future__ import annotations

import asyncio
from typing import Annotated

import numpy as np
from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, Field, NonNegativeInt

from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.data.readers.images import image_size
from dxseg.data.readers.masks import Mask
from dxseg.data.table.annotations import Role, save_mask
from dxseg.errors import UsageError
from dxseg.inference.files.table import model_name
from dxseg.inference.label_prompt import parse_label_prompt
from dxseg.server.case_queue import Cases
from dxseg.server.middleware import CASE, QUEUE, SAVE
from dxseg.server.schemas import (
    CaseAnswer,
    CocoRLE,
    PredictionResponse,
    describe_case,
    describe_prediction,
)
from dxseg.server.service import Service, problems
from dxseg.server.uploads import check_pixels

# What messages call a folder and a file, which may name a patient.
_DATASET, _IMAGE = "the dataset", "the image"


class WaitingCase(BaseModel):
    """A case without a mask."""

    case_id: str
    label: str = Field(description='As the dataset has it; "" for none.')
    score: float | None = Field(description="Of the table of suggestions; null without one.")


class QueueAnswer(BaseModel):
    """Cases without a mask, the next one first."""

    waiting: int = Field(description="How many there are in all.")
    cases: list[WaitingCase]


class CaseRequest(BaseModel):
    """Which case to propose a mask for."""

    case_id: str
    known: str = Field("", description="The image's label where it is known.")


class SaveRequest(BaseModel):
    """A mask that somebody has drawn or corrected."""

    case_id: str
    role: Role = Field(description="Of who drew it. Names are not kept.")
    mask: dict[str, CocoRLE] = Field(
        description="By class, all of the model's; no pixel in two of them."
    )
    previous: str = Field(
        "", description="The case's mask as `case.mask` told it; another one is not replaced."
    )
    known: str = Field("", description="The label that the proposal was made with.")


class SaveResponse(BaseModel):
    """What has been saved."""

    case: CaseAnswer
    time: str = Field(description="UTC, ISO 8601.")
    pixels: dict[str, NonNegativeInt] = Field(description="Of the mask, by class.")
    waiting: int = Field(description="How many cases are still without a mask.")


def add_case_routes(app: FastAPI, service: Service, cases: Cases) -> None:
    """Let clients work through a dataset.

    Args:
        app: Which gets the routes.
        service: The model.
        cases: Of the dataset.
    """
    info, secret, refused = service.info, service.secret, service.refused

    @app.get(QUEUE, responses=problems(*refused, 422, 500), dependencies=secret)
    async def queue(
        limit: Annotated[int, Query(ge=1, le=1000, description="Cases at most.")] = 100,
    ) -> QueueAnswer:
        """Give the cases that wait for a mask."""
        with alias_in_errors(cases.root, _DATASET):
            waiting = await asyncio.to_thread(cases.waiting)
        listed = [WaitingCase(**vars(case)) for case in waiting[:limit]]
        return QueueAnswer(waiting=len(waiting), cases=listed)

    @app.post(
        CASE,
        responses=problems(400, *refused, 404, 408, 413, 422, 429, 500, 503),
        dependencies=secret,
    )
    async def propose(request: Request, asked: CaseRequest) -> PredictionResponse:
        """Segment the image of a case; with its evidence, and the image as it was read."""
        async with service.timely():
            with alias_in_errors(cases.root, _DATASET):
                case = await asyncio.to_thread(cases.find, asked.case_id)
                size = await asyncio.to_thread(image_size, case.image)
                check_pixels(_IMAGE, size, service.settings.max_pixels)
                prediction = await service.predict(case.image, asked.known, _IMAGE, picture=True)
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
        """Save a mask into the dataset, with a role and the time."""
        parse_label_prompt(sent.known, info)
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
                known=sent.known,
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
    """Make one label map of the classes' run lengths.

    Raises:
        TooManyPixelsError: It has more pixels than the server takes.
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
