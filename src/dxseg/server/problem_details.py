"""Errors as problem details (RFC 9457, `application/problem+json`), without request data."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from dxseg.data.readers.budget import TooLargeError
from dxseg.data.table.annotations import ChangedCaseError, UnknownCaseError
from dxseg.errors import DxsegError
from dxseg.server.retraining.trainer import TrainingStateError
from dxseg.server.schemas import Problem
from dxseg.server.uploads import VolumeError
from dxseg.server.volume_store import UnknownVolumeError

MEDIA_TYPE = "application/problem+json"
VOLUME_PROBLEM = "urn:dxseg:problem:volume"
"""The kind of problem of a volume that was sent as one image."""


def problem_response(
    status: int,
    detail: str,
    request_id: str,
    headers: Mapping[str, str] | None = None,
    kind: str = "about:blank",
) -> Response:
    """Make the response for an error.

    Args:
        status: Of HTTP.
        detail: What was expected; sent to the client, not logged.
        request_id: Of the request.
        headers: More headers.
        kind: URI of the kind of problem, where a program should tell it from others.
    """
    problem = Problem(
        type=kind,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        request_id=request_id,
    )
    return JSONResponse(problem.model_dump(), status, dict(headers or {}), MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Make an app return every error as problem details.

    Args:
        app: Gets the handlers.
    """

    def handle(request: Request, error: Exception) -> Response:
        return problem_response(
            *_status_and_detail(error),
            request.state.request_id,
            getattr(error, "headers", None),
            VOLUME_PROBLEM if isinstance(error, VolumeError) else "about:blank",
        )

    for kind in (HTTPException, RequestValidationError, DxsegError):
        app.add_exception_handler(kind, handle)


def _status_and_detail(error: Exception) -> tuple[int, str]:
    if isinstance(error, HTTPException):
        return error.status_code, error.detail
    if isinstance(error, RequestValidationError):
        # Not FastAPI's own messages, which repeat the values.
        parts = [
            f"{'.'.join(str(part) for part in one['loc'][1:]) or 'body'}: {one['msg']}"
            for one in error.errors()[:5]
        ]
        return HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(parts)
    if isinstance(error, TooLargeError):
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)
    if isinstance(error, (UnknownCaseError, UnknownVolumeError)):
        return HTTPStatus.NOT_FOUND, str(error)
    if isinstance(error, (ChangedCaseError, TrainingStateError)):
        return HTTPStatus.CONFLICT, str(error)
    return HTTPStatus.UNPROCESSABLE_ENTITY, str(error)
