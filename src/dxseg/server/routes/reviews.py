"""Routes of review: the history of a case, second readings, and proposals to change the table."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import BaseModel, Field

from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.data.table.annotations import Annotation
from dxseg.data.table.records import Role
from dxseg.data.table.reviews import Review, ReviewKind, save_review
from dxseg.server.case_queue import CaseQueue
from dxseg.server.claims import Claims
from dxseg.server.middleware import HISTORY, REVIEW
from dxseg.server.schemas import CaseId, MaskPath, Reader
from dxseg.server.service import DATASET, Service, problems


class ReviewRequest(BaseModel):
    """A second reading, or a proposal."""

    case_id: CaseId
    role: Role = Field(description="Of the reader. Names are not stored.")
    kind: ReviewKind = Field(
        description="confirm: the mask is right; cannot-tell; reject: the image should leave the "
        "dataset; reopen: back into the work list; label: the label should be another."
    )
    mask: MaskPath = Field("", description="The case's mask as in `case.mask`.")
    label: str = Field("", max_length=4096, description="The proposed label.")
    reader: Reader = ""


class HistoryEntry(BaseModel):
    """What somebody did with a case."""

    time: str = Field(description="UTC, ISO 8601.")
    role: str
    kind: str = Field(description="`mask` for a saved mask, or the kind of a review.")
    mask: str = Field(description="Path of the mask in the dataset.")
    label: str = Field(description="Proposed label, or the label prompt of a saved mask.")
    model: str = Field(description="Of the prediction that was corrected.")


class HistoryResponse(BaseModel):
    """What people did with a case, oldest first."""

    entries: list[HistoryEntry]


def add_review_routes(app: FastAPI, service: Service, cases: CaseQueue, claims: Claims) -> None:
    """Add the routes.

    Args:
        app: Gets the routes.
        service: For the token.
        cases: Of the dataset.
        claims: The cases that readers have open.
    """
    secret, refused = service.secret, service.refused

    @app.get(HISTORY, responses=problems(*refused, 404, 422, 500), dependencies=secret)
    async def history(case_id: Annotated[CaseId, Query()]) -> HistoryResponse:
        """Return what people did with a case."""
        with alias_in_errors(cases.root, DATASET):
            masks, reviews = await asyncio.to_thread(cases.history, case_id)
        entries = [*map(_of_mask, masks), *map(_of_review, reviews)]
        return HistoryResponse(entries=sorted(entries, key=lambda entry: entry.time))

    @app.post(
        REVIEW, responses=problems(400, *refused, 404, 408, 409, 413, 422, 500), dependencies=secret
    )
    async def review(sent: ReviewRequest) -> HistoryEntry:
        """Record a second reading or a proposal; the table of cases stays as it is."""
        with alias_in_errors(cases.root, DATASET):
            done = await asyncio.to_thread(
                save_review,
                cases.root,
                sent.case_id,
                sent.kind,
                sent.role,
                mask=sent.mask,
                label=sent.label,
            )
        if sent.kind != "label":
            claims.release(sent.reader)
        return _of_review(done)


def _of_mask(one: Annotation) -> HistoryEntry:
    return HistoryEntry(
        time=one.time, role=one.role, kind="mask", mask=one.mask, label=one.known, model=one.model
    )


def _of_review(one: Review) -> HistoryEntry:
    return HistoryEntry(
        time=one.time, role=one.role, kind=one.kind, mask=one.mask, label=one.label, model=""
    )
