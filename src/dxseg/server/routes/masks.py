"""Routes of masks: reading one that a case has or had, and saving one."""

from __future__ import annotations

import asyncio
from typing import Annotated

import numpy as np
from fastapi import FastAPI, Query
from pydantic import BaseModel, Field, NonNegativeInt

from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.data.readers.masks import Mask
from dxseg.data.table.annotations import save_mask
from dxseg.data.table.records import Role
from dxseg.errors import UsageError
from dxseg.inference.files.table import model_name
from dxseg.inference.label_prompt import parse_label_prompt
from dxseg.server.case_queue import CaseQueue
from dxseg.server.claims import Claims
from dxseg.server.middleware import MASK
from dxseg.server.schemas import (
    CaseId,
    CaseResponse,
    CocoRLE,
    MaskPath,
    Reader,
    describe_case,
    run_lengths,
)
from dxseg.server.service import DATASET, Service, problems
from dxseg.server.uploads import check_pixels


class MaskResponse(BaseModel):
    """A mask of a case."""

    mask: dict[str, CocoRLE] = Field(description="By class.")


class SaveRequest(BaseModel):
    """A mask that was drawn or corrected."""

    case_id: CaseId
    role: Role = Field(description="Of the annotator. Names are not stored.")
    mask: dict[str, CocoRLE] = Field(
        description="By class, all of the model's; no pixel in two of them."
    )
    previous: MaskPath = Field(
        "", description="The case's mask as in `case.mask`; any other mask is not replaced."
    )
    label_prompt: str = Field("", description="The label prompt of the prediction.")
    model: str = Field(
        "",
        pattern="^[0-9a-f]{0,64}$",
        description="The model of the prediction, as in its response; default: the served one.",
    )
    reader: Reader = ""


class SaveResponse(BaseModel):
    """The saved mask."""

    case: CaseResponse
    time: str = Field(description="UTC, ISO 8601.")
    pixels: dict[str, NonNegativeInt] = Field(description="Of the mask, by class.")
    waiting: int = Field(description="Number of cases still without a mask.")


def add_mask_routes(app: FastAPI, service: Service, cases: CaseQueue, claims: Claims) -> None:
    """Add the routes.

    Args:
        app: Gets the routes.
        service: The model.
        cases: Of the dataset.
        claims: The cases that readers have open.
    """
    secret, refused = service.secret, service.refused

    @app.get(MASK, responses=problems(*refused, 404, 422, 500), dependencies=secret)
    async def read(
        case_id: Annotated[CaseId, Query()],
        mask: Annotated[MaskPath, Query(description="As in `case.mask` or the case's history.")],
    ) -> MaskResponse:
        """Return a mask that a case has or had."""

        def described() -> dict[str, CocoRLE]:
            labels = cases.mask(case_id, mask)
            names = enumerate(service.model.info.mask_classes, 1)
            return {name: run_lengths(labels == number) for number, name in names}

        with alias_in_errors(cases.root, DATASET):
            return MaskResponse(mask=await asyncio.to_thread(described))

    @app.post(
        MASK, responses=problems(400, *refused, 404, 408, 409, 413, 422, 500), dependencies=secret
    )
    async def save(sent: SaveRequest) -> SaveResponse:
        """Save a mask into the dataset, with role and time."""
        info = service.model.info
        parse_label_prompt(sent.label_prompt, info)
        mask = await asyncio.to_thread(label_map, sent.mask, service)
        with alias_in_errors(cases.root, DATASET):
            done = await asyncio.to_thread(
                save_mask,
                cases.root,
                sent.case_id,
                mask,
                sent.role,
                previous=sent.previous,
                model=sent.model or model_name(info),
                known=sent.label_prompt,
            )
            case = await asyncio.to_thread(cases.find, sent.case_id)
            waiting = await asyncio.to_thread(cases.waiting)
        claims.release(sent.reader)
        counts = np.bincount(mask.ravel(), minlength=len(info.mask_classes) + 1)[1:].tolist()
        return SaveResponse(
            case=describe_case(case.row),
            time=done.time,
            pixels=dict(zip(info.mask_classes, counts, strict=True)),
            waiting=len(waiting),
        )


def label_map(sent: dict[str, CocoRLE], service: Service) -> Mask:
    """Combine the run lengths of all classes into one label map.

    Args:
        sent: Run lengths by class.
        service: The model's classes, and the limits.

    Raises:
        TooLargeError: It has more pixels than the server takes.
        UsageError: Classes are missing, unknown, of different sizes or overlap, or the runs do not
            fill the image.
    """
    classes = service.model.info.mask_classes
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
