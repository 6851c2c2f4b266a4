"""What the routes share: the model, the queue before it, a private folder for uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, HTTPException, UploadFile
from fastapi.security import HTTPBearer

from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.inference.label_prompt import parse_label_prompt
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.server.middleware import BUSY
from dxseg.server.problem_details import MEDIA_TYPE
from dxseg.server.schemas import Problem
from dxseg.server.settings import Settings
from dxseg.server.telemetry import Metrics
from dxseg.server.uploads import Upload, UploadDir, inspect_upload, keep
from dxseg.server.worker import QueueFullError, StoppingError, Worker


class Service:
    """One model that is served."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        """Start the thread that predicts.

        Args:
            predictor: Of the model.
            settings: Limits, and the token.
        """
        self.info, self.settings = predictor.info, settings
        self.worker = Worker(predictor, settings.queue)
        self.metrics = Metrics(lambda: self.worker.in_flight)
        self._folder = UploadDir()
        # Declared for OpenAPI; the guard has looked at the token by then.
        self.secret = [Depends(HTTPBearer(auto_error=False))] if settings.token is not None else []
        self.refused = (403, 401) if self.secret else (403,)

    @asynccontextmanager
    async def received(self, file: UploadFile) -> AsyncIterator[Upload]:
        """Keep an upload as a file while the block runs."""
        path = await asyncio.to_thread(keep, file.file, self._folder.path)
        try:
            yield await asyncio.to_thread(inspect_upload, path, self.settings.max_pixels)
        finally:
            path.unlink(missing_ok=True)

    @asynccontextmanager
    async def timely(self) -> AsyncIterator[None]:
        """Give up on what takes too long."""
        try:
            async with asyncio.timeout(self.settings.seconds):
                yield
        except TimeoutError:
            raise HTTPException(
                503,
                f"no answer within {self.settings.seconds:g} s; the server has too much to do",
                headers={"Retry-After": "5"},
            ) from None

    async def predict(self, path: Path, known: str, name: str, *, picture: bool) -> Prediction:
        """Wait for a prediction.

        Args:
            path: The image.
            known: Its label where it is known; "" where not.
            name: What messages call it.
            picture: Whether the decoded pixels are wanted too.
        """
        parse_label_prompt(known, self.info)
        try:
            future = self.worker.submit(path, known, keep_image=picture)
        except QueueFullError:
            raise HTTPException(429, BUSY, headers={"Retry-After": "1"}) from None
        except StoppingError:
            raise HTTPException(503, "the server is stopping") from None
        with alias_in_errors(path, name):
            return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Finish what is in hand, then leave nothing behind."""
        self.worker.stop()
        self._folder.close()


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe errors of a route for OpenAPI.

    Args:
        statuses: Of HTTP.
    """
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    told = {
        400: "The body cannot be parsed.",
        401: "No token, or a wrong one.",
        403: "Sent from a page of another site, or to a name of another site.",
        404: "The dataset has no such case.",
        408: "The request took too long to arrive.",
        409: "The case has got another mask meanwhile.",
        413: "Too many bytes or pixels.",
        422: "No image that can be read, or a field that does not fit the model or the dataset.",
        429: "As many images are in hand as may be; `Retry-After` says when to come again.",
        500: "The server failed.",
        503: "Stopping, or the answer took too long.",
    }
    return {status: {"description": told[status], "content": content} for status in statuses}
