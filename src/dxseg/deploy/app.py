"""The routes: predict, model, health, metrics; and the page, where there is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dxseg.data.dicom.headers import called
from dxseg.deploy.answers import (
    Health,
    Limits,
    ModelAnswer,
    PredictionAnswer,
    Problem,
    describe_model,
    describe_prediction,
)
from dxseg.deploy.guard import BUSY, HEALTH, METRICS, MODEL, PREDICT, Guard
from dxseg.deploy.problems import MEDIA_TYPE, answer_with_problems
from dxseg.deploy.settings import Settings
from dxseg.deploy.telemetry import Metrics
from dxseg.deploy.uploads import NAME, PrivateFolder, Spacing, Upload, inspect_upload, keep
from dxseg.deploy.worker import QueueFullError, StoppingError, Worker
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.bundle import DXSEG_VERSION
from dxseg.inference.dicom_seg import image_segmentation
from dxseg.inference.known import label_names
from dxseg.inference.predictor import Prediction, Predictor

WEB = Path(str(files("dxseg") / "deploy" / "web"))
"""The page's files, served as they are below `/`."""

DICOM = "application/dicom"
_DESCRIPTION = """Lesion segmentation of single images with one trained model.
Research software, **not a medical device**: not for diagnosis or treatment."""


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    told = {
        400: "The body cannot be parsed.",
        401: "No token, or a wrong one.",
        403: "Sent from a page of another site, or to a name of another site.",
        408: "The request took too long to arrive.",
        413: "Too many bytes or pixels.",
        422: "No image that can be read, or a field that does not fit the model.",
        429: "As many images are in hand as may be; `Retry-After` says when to come again.",
        500: "The server failed.",
        503: "Stopping, or the answer took too long.",
    }
    return {status: {"description": told[status], "content": content} for status in statuses}


class _Service:
    """What the routes share."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self.info, self.settings = predictor.info, settings
        self.worker = Worker(predictor, settings.queue)
        self.metrics = Metrics(lambda: self.worker.in_hand)
        self._folder = PrivateFolder()

    @asynccontextmanager
    async def received(self, file: UploadFile) -> AsyncIterator[Upload]:
        """Keep an upload as a file while the block runs."""
        path = await asyncio.to_thread(keep, file.file, self._folder.path)
        try:
            yield await asyncio.to_thread(inspect_upload, path, self.settings.max_pixels)
        finally:
            path.unlink(missing_ok=True)

    async def predict(self, upload: Upload, known: str) -> Prediction:
        """Wait for the prediction of an upload."""
        label_names(known, self.info)
        try:
            future = self.worker.submit(upload.path, known)
        except QueueFullError:
            raise HTTPException(429, BUSY, headers={"Retry-After": "1"}) from None
        except StoppingError:
            raise HTTPException(503, "the server is stopping") from None
        try:
            return await asyncio.wrap_future(future)
        except DxsegError as error:
            raise DxsegError(str(error).replace(str(upload.path), NAME)) from None

    def close(self) -> None:
        """Finish what is in hand, then leave nothing behind."""
        self.worker.stop()
        self._folder.close()


def create_app(predictor: Predictor, settings: Settings, *, web: Path = WEB) -> FastAPI:
    """Make the server's ASGI app.

    Args:
        predictor: Of the model to serve.
        settings: Limits, and the token.
        web: Folder of the page, which need not be there.

    Returns:
        The app. `app.state.stopping = True` lets it take no more images; its lifespan must run.
    """
    service = _Service(predictor, settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="dxseg",
        version=DXSEG_VERSION,
        description=_DESCRIPTION,
        # Its pages would load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.stopping = False
    answer_with_problems(app)
    app.add_middleware(
        Guard,
        settings=settings,
        metrics=service.metrics,
        worker=service.worker,
        stopping=lambda: app.state.stopping,
    )
    _add_routes(app, service)
    if web.is_dir():
        app.mount("/", StaticFiles(directory=web, html=True), name="web")
    return app


def _add_routes(app: FastAPI, service: _Service) -> None:
    settings = service.settings
    # Declared for OpenAPI; the guard has looked at the token by then.
    secret = [Depends(HTTPBearer(auto_error=False))] if settings.token is not None else []
    refused = (403, 401) if secret else (403,)

    @app.post(
        PREDICT,
        response_model=PredictionAnswer,
        responses={
            200: {"content": {DICOM: {"schema": {"type": "string", "format": "binary"}}}},
            **_problems(400, *refused, 408, 413, 422, 429, 500, 503),
        },
        dependencies=secret,
    )
    async def predict(
        request: Request,
        file: Annotated[UploadFile, File(description="PNG, JPEG, TIFF, BMP, or DICOM.")],
        known: Annotated[
            str, Form(description="The image's label where it is known, of the model's labels.")
        ] = "",
        spacing_y: Annotated[
            float | None, Form(gt=0, lt=1e6, description="Height of a pixel, mm.")
        ] = None,
        spacing_x: Annotated[
            float | None, Form(gt=0, lt=1e6, description="Width of a pixel, mm.")
        ] = None,
        evidence: Annotated[bool, Form(description="Whether to give evidence maps.")] = False,
        format: Annotated[
            Literal["json", "dicom-seg"] | None,
            Form(description="dicom-seg, or `Accept: application/dicom`, for DICOM uploads."),
        ] = None,
    ) -> Response:
        """Segment one image."""
        spacing = _spacing(spacing_y, spacing_x)
        accepted = DICOM if DICOM in request.headers.get("accept", "") else ""
        wants_seg = format == "dicom-seg" or (format is None and accepted == DICOM)
        try:
            async with asyncio.timeout(settings.seconds), service.received(file) as upload:
                if wants_seg and not upload.is_dicom:
                    raise UsageError("a DICOM SEG refers to a DICOM image; expected one as file")
                prediction = await service.predict(upload, known)
                if wants_seg:
                    content = await asyncio.to_thread(_segmentation, service, upload, prediction)
                    return Response(content, media_type=DICOM)
                answer = await asyncio.to_thread(
                    describe_prediction,
                    prediction,
                    service.info,
                    request_id=request.state.request_id,
                    spacing=spacing or upload.spacing,
                    evidence=evidence,
                )
                return Response(answer.model_dump_json(), media_type="application/json")
        except TimeoutError:
            raise HTTPException(
                503,
                f"no answer within {settings.seconds:g} s; the server has too much to do",
                headers={"Retry-After": "5"},
            ) from None

    @app.get(MODEL, responses=_problems(*refused, 500), dependencies=secret)
    async def model() -> ModelAnswer:
        """Say which model is served, and how much may be sent."""
        limits = Limits(
            max_bytes=settings.max_bytes, max_pixels=settings.max_pixels, queue=settings.queue
        )
        return describe_model(service.info, limits)

    @app.get(HEALTH, responses=_problems(403, 500, 503))
    async def healthz() -> Health:
        """Say whether predictions are made."""
        if app.state.stopping or not service.worker.alive:
            raise HTTPException(503, "no more images are taken")
        return Health(status="ok")

    @app.get(
        METRICS,
        response_class=Response,
        responses={
            200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}},
            **_problems(*refused, 500),
        },
        dependencies=secret,
    )
    async def metrics() -> Response:
        """Give counts and times in the format of Prometheus."""
        content = generate_latest(service.metrics.registry)
        return Response(content, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _spacing(height: float | None, width: float | None) -> Spacing | None:
    if height is None and width is None:
        return None
    if height is None or width is None:
        raise UsageError("spacing_y and spacing_x: expected both or none")
    return height, width


def _segmentation(service: _Service, upload: Upload, prediction: Prediction) -> bytes:
    with called(upload.path, NAME):
        return image_segmentation(upload.path, prediction.mask, service.info)
