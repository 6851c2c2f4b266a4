"""ASGI middleware: token and origin checks, limits of requests, metrics, logs and headers.

A middleware, because FastAPI reads the whole body before its dependencies could refuse it.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dxseg.server.problem_details import problem_response
from dxseg.server.settings import Settings
from dxseg.server.telemetry import LOGGER, OTHER, Metrics
from dxseg.server.worker import Worker

PREDICT, MODEL, HEALTH, METRICS = "/v1/predict", "/v1/model", "/healthz", "/metrics"
QUEUE, NEXT, CASE = "/v1/cases", "/v1/cases/next", "/v1/cases/predict"
MASK, REVIEW, HISTORY = "/v1/cases/mask", "/v1/cases/review", "/v1/cases/history"
TRAINING, TRAINING_MODEL = "/v1/training", "/v1/training/model"
CASE_VOLUME, CASE_LABELS = "/v1/cases/volume", "/v1/cases/volume/labels"
VOLUMES, VOLUME_SLICE, VOLUME_LABELS = "/v1/volumes", "/v1/volumes/slice", "/v1/volumes/labels"
_CASES = (
    *(QUEUE, NEXT, CASE, MASK, REVIEW, HISTORY, CASE_VOLUME, CASE_LABELS),
    *(TRAINING, TRAINING_MODEL),
)
LABEL_STUDIO_HEALTH, LABEL_STUDIO_SETUP, LABEL_STUDIO_PREDICT = _LABEL_STUDIO = (
    *("/label-studio/health", "/label-studio/setup", "/label-studio/predict"),
)
_VOLUMES = (VOLUMES, VOLUME_SLICE, VOLUME_LABELS)
_SECRET = (PREDICT, MODEL, *_CASES, *_VOLUMES, METRICS, *_LABEL_STUDIO)
"""Routes that return something about patients or the model."""
_PROTECTED = ("/v1/", "/label-studio/", METRICS)
"""Beginnings of all paths that need the token, those of routes of the future too."""
ROUTES = (*_SECRET, HEALTH, "/openapi.json")
_PREDICTING = (PREDICT, CASE, VOLUMES, VOLUME_SLICE, LABEL_STUDIO_PREDICT)
_UPLOADING = (PREDICT, VOLUMES)
_JSON_BYTES = 4 * 2**20
"""Limit of a JSON request: parsed, its numbers take many times their text in memory."""

_HEADERS = {
    # No script, style or image from other sites, and no inline ones.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_UPLOADS = 4
"""Limit of simultaneous uploads, in queue lengths: slow clients must not fill the queue."""


class RequestGuardMiddleware:
    """Checks, limits, counts and logs requests; adds headers to responses."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        worker: Worker,
        stopping: Callable[[], bool],
    ) -> None:
        """Wrap an app.

        Args:
            app: Gets the accepted requests.
            settings: The limits.
            metrics: Counts responses.
            worker: Has the queue that may be full.
            stopping: Returns whether the server is stopping.
        """
        self._app, self._settings, self._metrics = app, settings, metrics
        self._worker, self._stopping = worker, stopping
        self._receiving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        response = _ResponseSender(send, request_id)
        body = _LimitedReceive(receive, self._settings, self._max_bytes(scope["path"]))
        try:
            await self._respond(scope, body, response)
        except Exception:  # noqa: BLE001 - one request's failure must not end the others
            # Its message may quote the request; the log has only type and place.
            LOGGER.exception("failed", extra={"fields": {"request_id": request_id}})
            if not response.status:
                failure = problem_response(500, "the server failed; see its log", request_id)
                await failure(scope, body, response)
        finally:
            route = scope["path"] if scope["path"] in ROUTES else OTHER
            seconds = time.perf_counter() - begun
            self._metrics.answered(route, response.status, seconds)
            fields = {
                "request_id": request_id,
                "method": scope["method"] if scope["method"].isalpha() else OTHER,
                "route": route,
                "status": response.status,
                "received_bytes": body.received,
                "seconds": round(seconds, 4),
            }
            LOGGER.info("answered", extra={"fields": fields})

    async def _respond(
        self, scope: Scope, body: _LimitedReceive, response: _ResponseSender
    ) -> None:
        request_id = scope["state"]["request_id"]
        try:
            self._authorize(scope)
        except HTTPException as refusal:
            refused = problem_response(
                refusal.status_code, refusal.detail, request_id, refusal.headers
            )
            # A client that is still sending would see a broken connection instead of the response.
            await body.discard()
            await refused(scope, body, response)
            return
        counted = scope["path"] in _PREDICTING
        self._receiving += counted
        try:

            def arrived() -> None:
                nonlocal counted
                self._receiving -= counted
                counted = False

            body.when_complete = arrived
            await self._app(scope, body, response)
        finally:
            self._receiving -= counted

    def _authorize(self, scope: Scope) -> None:
        """Refuse a request by its headers alone."""
        headers, settings, path = Headers(scope=scope), self._settings, scope["path"]
        self._check_source(headers)
        if not path.isprintable():
            # Starlette finds the route of a path that a line feed follows; no check here would.
            raise HTTPException(404, "no such route")
        if settings.token is not None and path.startswith(_PROTECTED):
            given = _bearer_token(headers, basic=path in _LABEL_STUDIO)
            if not secrets.compare_digest(given, settings.token.encode()):
                raise HTTPException(
                    401, "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"}
                )
        length = headers.get("content-length", "0")
        max_bytes = self._max_bytes(path)
        if length.isdecimal() and int(length) > max_bytes:
            raise HTTPException(413, too_large(max_bytes))
        if path in _PREDICTING and scope["method"] == "POST":
            if self._stopping():
                raise HTTPException(503, "the server is stopping", headers={"Retry-After": "10"})
            if self._worker.full or self._receiving >= _UPLOADS * settings.queue:
                raise HTTPException(429, BUSY, headers={"Retry-After": "1"})

    def _max_bytes(self, path: str) -> int:
        limit = self._settings.max_bytes
        return limit if path in _UPLOADING else min(limit, _JSON_BYTES)

    def _check_source(self, headers: Headers) -> None:
        """Refuse what a page of another site would send from a user's browser."""
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and _authority(origin) != host:
            raise HTTPException(403, "requests from pages of other sites are refused")
        if self._settings.token is None and _host_name(host) not in (
            *("localhost", "127.0.0.1", "::1"),
            self._settings.host,
        ):
            # A host name of another site that resolves to this machine (DNS rebinding).
            raise HTTPException(403, "this server is reached as localhost only")


BUSY = "too many images in flight; try again soon"


def too_large(max_bytes: int) -> str:
    """Message for a request that is too large."""
    return f"the request is too large; expected at most {max_bytes} bytes"


def _bearer_token(headers: Headers, *, basic: bool) -> bytes:
    """The token of a request; empty without one.

    Args:
        headers: Of the request.
        basic: Whether the password of a basic authentication counts too, with any user name: Label
            Studio supports no other. Browsers are not offered it.
    """
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return shown.strip().encode()
    if not basic or scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(shown.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # such as http://[::1
        return None


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class _LimitedReceive:
    """Receives a request's body, limited in size and time."""

    def __init__(self, receive: Receive, settings: Settings, max_bytes: int) -> None:
        self.received = 0
        self.when_complete: Callable[[], None] = lambda: None
        self._receive, self._settings, self._max_bytes = receive, settings, max_bytes
        self._deadline = time.monotonic() + settings.upload_seconds
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            detail = f"the request took more than {self._settings.upload_seconds:g} s to arrive"
            raise HTTPException(408, detail, headers={"Connection": "close"}) from None
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            if self.received > self._max_bytes:
                closing = {"Connection": "close"}
                raise HTTPException(413, too_large(self._max_bytes), headers=closing)
            if not message.get("more_body", False):
                self._finish()
        else:
            self._finish()
        return message

    async def discard(self) -> None:
        """Receive and drop the rest of the body; give up at the limits."""
        try:
            while not self._complete:
                await self()
        except HTTPException:
            return

    def _finish(self) -> None:
        self._complete = True
        self.when_complete()


class _ResponseSender:
    """Sends a response with the common headers; stores its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.status = 0
        self._send, self._request_id = send, request_id

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers: Any = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            headers["X-Request-ID"] = self._request_id
        await self._send(message)
