"""Shared by the routes: the model, its queue, and a private folder for uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Depends, HTTPException, UploadFile
from fastapi.security import HTTPBearer

from dxseg.data.readers.budget import decode_budget
from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.data.readers.images import image_size
from dxseg.inference.label_prompt import parse_label_prompt
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.inference.sources import Source, file_of
from dxseg.server.middleware import BUSY
from dxseg.server.problem_details import MEDIA_TYPE
from dxseg.server.schemas import Problem
from dxseg.server.settings import Settings
from dxseg.server.stored_values import StoredValues, stored_values
from dxseg.server.telemetry import Metrics
from dxseg.server.uploads import Upload, UploadDir, check_pixels, inspect_upload, save_upload
from dxseg.server.worker import QueueFullError, StoppingError, Worker

DATASET, IMAGE = "the dataset", "the image"
"""Names of a folder and a file in messages: their own may contain a patient's name."""

_T = TypeVar("_T")


class Service:
    """What the routes share.

    Attributes:
        model: The served model. It may be replaced at any time; a request takes it once, at its
            beginning, and ends with the one that it took.
    """

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        """Start the thread that predicts.

        Args:
            predictor: Of the model.
            settings: Limits, and the token.
        """
        self.model, self.settings = predictor, settings
        self.worker = Worker(settings.queue, settings.max_decoded_bytes)
        self.metrics = Metrics(lambda: self.worker.in_flight)
        self.upload_dir = UploadDir()
        # Declared for OpenAPI; the middleware has checked the token by then.
        self.secret = [Depends(HTTPBearer(auto_error=False))] if settings.token is not None else []
        self.refused = (403, 401) if self.secret else (403,)

    @asynccontextmanager
    async def saved_upload(self, file: UploadFile) -> AsyncIterator[Upload]:
        """Save and inspect an upload; its file stays while the block runs."""
        path = await asyncio.to_thread(save_upload, file.file, self.upload_dir.path)
        try:
            with self.inspecting():
                upload = await asyncio.to_thread(inspect_upload, path, self.settings.max_pixels)
            yield upload
        finally:
            path.unlink(missing_ok=True)

    async def inspect_image(self, path: Path, name: str) -> None:
        """Check the header of an image of the dataset.

        Args:
            path: The image.
            name: Its name in messages.

        Raises:
            TooLargeError: It is larger than the server accepts.
            DxsegError: It cannot be read as an image.
        """
        with self.inspecting(), alias_in_errors(path, name):
            size = await asyncio.to_thread(image_size, path)
            check_pixels(name, size, self.settings.max_pixels)

    @asynccontextmanager
    async def with_timeout(self) -> AsyncIterator[None]:
        """Cancel the block when it takes too long."""
        try:
            async with asyncio.timeout(self.settings.seconds):
                yield
        except TimeoutError:
            raise HTTPException(
                503,
                f"no result within {self.settings.seconds:g} s; the server is busy",
                headers={"Retry-After": "5"},
            ) from None

    async def predict(
        self,
        model: Predictor,
        source: Source,
        label_prompt: str,
        name: str,
        *,
        return_image: bool,
    ) -> Prediction:
        """Wait for a prediction.

        Args:
            model: The one that the request began with.
            source: The image.
            label_prompt: Its label prompt; "" for none.
            name: Its name in messages.
            return_image: Whether the prediction carries the decoded pixels.
        """
        parse_label_prompt(label_prompt, model.info)
        with _refusals():
            future = self.worker.submit(model, source, label_prompt, keep_image=return_image)
        file = file_of(source)
        if file is None:  # its errors name no file
            return await asyncio.wrap_future(future)
        with alias_in_errors(file, name):
            return await asyncio.wrap_future(future)

    async def run_task(self, task: Callable[[], _T]) -> _T:
        """Wait for work in the thread that predicts; see `Worker.submit_task`."""
        with _refusals():
            future = self.worker.submit_task(task)
        return await asyncio.wrap_future(future)

    async def viewer_values(
        self, path: Path, name: str, prediction: Prediction
    ) -> StoredValues | None:
        """Read the values of an image that is returned for viewing.

        Args:
            path: The image.
            name: Its name in messages.
            prediction: Of the image; without the decoded pixels nothing is read.
        """
        if prediction.image is None:
            return None
        limit = decode_budget(self.settings.max_decoded_bytes)
        with limit, alias_in_errors(path, name):
            return await asyncio.to_thread(stored_values, path, prediction.image)

    @contextmanager
    def inspecting(self) -> Iterator[None]:
        """Count an image as in flight, and limit what its header may make the block decode."""
        limit = decode_budget(self.settings.max_decoded_bytes)
        with _refusals(), self.worker.inspecting(), limit:
            yield

    def close(self) -> None:
        """Finish what is in flight, then remove all uploads."""
        self.worker.stop()
        self.upload_dir.close()


@contextmanager
def _refusals() -> Iterator[None]:
    """Translate refusals of the queue."""
    try:
        yield
    except QueueFullError:
        raise HTTPException(429, BUSY, headers={"Retry-After": "1"}) from None
    except StoppingError:
        raise HTTPException(503, "the server is stopping") from None


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe errors of a route for OpenAPI.

    Args:
        statuses: Of HTTP.
    """
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    descriptions = {
        400: "The body cannot be parsed.",
        401: "No token, or a wrong one.",
        403: "Sent from a page of another site, or to another host name.",
        404: "The dataset has no such case.",
        408: "The request took too long to arrive.",
        409: "The case has another mask by now, or the training is in another state.",
        413: "Too many bytes or pixels.",
        422: "The image cannot be read, or a field does not fit the model or the dataset.",
        429: "Too many images in flight; `Retry-After` gives the seconds to wait.",
        500: "The server failed.",
        503: "Stopping, or the prediction took too long.",
    }
    return {
        status: {"description": descriptions[status], "content": content} for status in statuses
    }
