"""Routes of a dataset's cases: the work list, and the prediction for one."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Query, Request
from pydantic import BaseModel, Field, NonNegativeInt

from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.server.case_prediction import predict_case as predict_with_neighbors
from dxseg.server.case_queue import CaseQueue
from dxseg.server.claims import Claims
from dxseg.server.middleware import CASE, CASE_VOLUME, NEXT, QUEUE
from dxseg.server.schemas import (
    CaseId,
    PredictionResponse,
    Reader,
    describe_case,
    with_shown_slice,
)
from dxseg.server.schemas import describe_prediction as describe
from dxseg.server.service import DATASET, IMAGE, Service, problems
from dxseg.server.work_list import STATES, CaseFilter, CaseState, ListedCase, next_case


class ListedCaseOut(BaseModel):
    """A case of the work list."""

    case_id: str
    label: str = Field(description='As the dataset has it; "" for none.')
    label_prompt: str = Field(
        description='The label of the image itself, to predict with; "" where it is of its study.'
    )
    score: float | None = Field(description="In the table of suggestions; null without one.")
    state: CaseState = Field(
        description="waiting: without a mask; drawn: saved here; confirmed: by a second reader; "
        "given: with the dataset; set-aside: nobody can tell, or the image should leave."
    )
    volume_id: str = Field(description='Of a volume, whose slices are one entry; "" for an image.')
    slices: int = Field(description="Number of its slices.")
    left: int = Field(description="Number of its slices without a mask.")
    taken: bool = Field(description="Whether somebody else has opened it within 15 minutes.")


class QueueResponse(BaseModel):
    """A part of the work list, in the order of annotation."""

    waiting: int = Field(description="Total number of cases without a mask.")
    states: dict[str, NonNegativeInt] = Field(description="Number of cases by state.")
    labels: list[str] = Field(description='Labels that occur; "" for none.')
    total: int = Field(description="Cases that match the filter.")
    cases: list[ListedCaseOut]


class NextResponse(BaseModel):
    """The next case."""

    case: ListedCaseOut | None = Field(description="Null if there is no other.")


class SliceOut(BaseModel):
    """A slice of a volume."""

    case_id: str
    label: str = Field(description='Of the slice itself; "" where only the volume has one.')
    state: CaseState


class CaseVolumeResponse(BaseModel):
    """The volume of a slice."""

    volume_id: str
    entry: str = Field(description="The case_id by which the work list has it.")
    slices: list[SliceOut] = Field(description="In order.")


class CaseRequest(BaseModel):
    """Which case to predict."""

    case_id: CaseId
    label_prompt: str = Field("", description="The image's label where it is known.")
    reader: Reader = ""


def case_filter(
    state: Annotated[CaseState | Literal["any"], Query(description="Of the cases.")] = "waiting",
    label: Annotated[
        str | None, Query(max_length=4096, description='Their label, "" for none; default: any.')
    ] = None,
    search: Annotated[str, Query(max_length=200, description="Part of the case_id.")] = "",
) -> CaseFilter:
    """Read a filter from a query."""
    return CaseFilter(None if state == "any" else state, label, search)


def add_case_routes(app: FastAPI, service: Service, cases: CaseQueue, claims: Claims) -> None:
    """Add the routes.

    Args:
        app: Gets the routes.
        service: The model.
        cases: Of the dataset.
        claims: The cases that readers have open.
    """
    secret, refused = service.secret, service.refused

    @app.get(QUEUE, responses=problems(*refused, 422, 500), dependencies=secret)
    async def queue(
        wanted: Annotated[CaseFilter, Depends(case_filter)],
        offset: Annotated[int, Query(ge=0, description="Cases to leave out.")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000, description="Cases at most.")] = 100,
        reader: Annotated[Reader, Query()] = "",
    ) -> QueueResponse:
        """List cases."""
        taken = claims.others(reader)

        def listed() -> QueueResponse:
            every = cases.listed()
            found = [case for case in every if wanted.matches(case)]
            counts = Counter[str](case.state for case in every)
            return QueueResponse(
                waiting=counts["waiting"],
                states={state: counts[state] for state in STATES},
                labels=sorted({case.label for case in every}),
                total=len(found),
                cases=[_out(case, taken) for case in found[offset : offset + limit]],
            )

        with alias_in_errors(cases.root, DATASET):
            return await asyncio.to_thread(listed)

    @app.get(NEXT, responses=problems(*refused, 422, 500), dependencies=secret)
    async def following(
        wanted: Annotated[CaseFilter, Depends(case_filter)],
        after: Annotated[
            str, Query(max_length=200, description="The case that was done or skipped.")
        ] = "",
        reader: Annotated[Reader, Query()] = "",
    ) -> NextResponse:
        """Return the case after another; cases that others have open are passed over."""
        taken = claims.others(reader)
        with alias_in_errors(cases.root, DATASET):
            found = await asyncio.to_thread(lambda: next_case(cases.listed(), after, wanted, taken))
        return NextResponse(case=None if found is None else _out(found, taken))

    @app.get(CASE_VOLUME, responses=problems(*refused, 404, 422, 500), dependencies=secret)
    async def volume_of(case_id: Annotated[CaseId, Query()]) -> CaseVolumeResponse:
        """Return the slices of a case's volume."""
        with alias_in_errors(cases.root, DATASET):
            found = await asyncio.to_thread(cases.volume, case_id)
            labels = await asyncio.to_thread(cases.image_labels)
        return CaseVolumeResponse(
            volume_id=found.entry.volume_id,
            entry=found.entry.case_id,
            slices=[
                SliceOut(case_id=one.case_id, label=labels[one.case_id], state=one.state)
                for one in found.slices
            ],
        )

    @app.post(
        CASE,
        responses=problems(400, *refused, 404, 408, 413, 422, 429, 500, 503),
        dependencies=secret,
    )
    async def predict_case(request: Request, sent: CaseRequest) -> PredictionResponse:
        """Segment the image of a case; returns class activation maps and the image too."""
        model = service.model
        async with service.with_timeout():
            with alias_in_errors(cases.root, DATASET):
                case = await asyncio.to_thread(cases.find, sent.case_id)
                # Of a volume all slices: its entry is what others see.
                entry = await asyncio.to_thread(cases.entry_of, sent.case_id)
                claims.claim(sent.reader, entry)
                await service.inspect_image(case.image, IMAGE)
                found = await predict_with_neighbors(
                    service, model, cases, case, sent.label_prompt, return_image=True
                )
                prediction = with_shown_slice(found, model.info.slicing)
                values = await service.viewer_values(case.image, IMAGE, prediction)
            return await asyncio.to_thread(
                describe,
                prediction,
                model.info,
                request_id=request.state.request_id,
                spacing=case.spacing,
                evidence=True,
                values=values,
                case=describe_case(case.row),
            )


def _out(case: ListedCase, taken: frozenset[str]) -> ListedCaseOut:
    return ListedCaseOut(**vars(case), taken=case.case_id in taken)
