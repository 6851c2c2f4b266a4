"""The routes: predict, model, health, metrics; a dataset's, and the page, where there are any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dxseg.data.dicom.headers import called
from dxseg.deploy.answers import (
    Health,
    Limits,
    ModelAnswer,
    PredictionAnswer,
    describe_case,
    describe_model,
    describe_prediction,
)
from dxseg.deploy.case_routes import add_case_routes
from dxseg.deploy.cases import Cases
from dxseg.deploy.guard import HEALTH, METRICS, MODEL, PREDICT, Guard
from dxseg.deploy.label_studio import add_label_studio_routes
from dxseg.deploy.problems import answer_with_problems
from dxseg.deploy.service import Service, problems
from dxseg.deploy.settings import Settings
from dxseg.deploy.uploads import NAME, Spacing, Upload
from dxseg.errors import UsageError
from dxseg.inference.bundle import DXSEG_VERSION
from dxseg.inference.dicom_seg import image_segmentation
from dxseg.inference.prediction import Prediction
from dxseg.inference.predictor import Predictor

WEB = Path(str(files("dxseg") / "deploy" / "web"))
"""The page's files, served as they are below `/`."""

DICOM = "application/dicom"
_DESCRIPTION = """Lesion segmentation of single images with one trained model.
Research software, **not a medical device**: not for diagnosis or treatment."""


def create_app(
    predictor: Predictor, settings: Settings, *, cases: Cases | None = None, web: Path = WEB
) -> FastAPI:
    """Make the server's ASGI app.

    Args:
        predictor: Of the model to serve.
        settings: Limits, and the token.
        cases: Of the dataset that masks are saved into; None serves none.
        web: Folder of the page, which need not be there.

    Returns:
        The app. `app.state.stopping = True` lets it take no more images; its lifespan must run.

    Raises:
        UsageError: A dataset is served without a token.
    """
    if cases is not None and settings.token is None:
        # Else every account of the machine, and a page in its browsers, could read and write it.
        raise UsageError(f"{cases.root}: a dataset is served with a token only; give one")
    service = Service(predictor, settings)

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
    _add_routes(app, service, cases)
    if cases is not None:
        add_case_routes(app, service, cases)
        add_label_studio_routes(app, service, cases)
    if web.is_dir():
        app.mount("/", StaticFiles(directory=web, html=True), name="web")
    return app


def _add_routes(app: FastAPI, service: Service, cases: Cases | None) -> None:
    settings, secret, refused = service.settings, service.secret, service.refused

    @app.post(
        PREDICT,
        response_model=PredictionAnswer,
        responses={
            200: {"content": {DICOM: {"schema": {"type": "string", "format": "binary"}}}},
            **problems(400, *refused, 408, 413, 422, 429, 500, 503),
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
        picture: Annotated[
            bool, Form(description="Whether to give the image as it was read, for viewing.")
        ] = False,
        format: Annotated[
            Literal["json", "dicom-seg"] | None,
            Form(description="dicom-seg, or `Accept: application/dicom`, for DICOM uploads."),
        ] = None,
    ) -> Response:
        """Segment one image."""
        spacing = _spacing(spacing_y, spacing_x)
        accepted = DICOM if DICOM in request.headers.get("accept", "") else ""
        wants_seg = format == "dicom-seg" or (format is None and accepted == DICOM)
        async with service.timely(), service.received(file) as upload:
            if wants_seg and not upload.is_dicom:
                raise UsageError("a DICOM SEG refers to a DICOM image; expected one as file")
            prediction = await service.predict(upload.path, known, NAME, picture=picture)
            if wants_seg:
                content = await asyncio.to_thread(_segmentation, service, upload, prediction)
                return Response(content, media_type=DICOM)
            case = None
            if cases is not None and picture:
                case = await asyncio.to_thread(cases.same_image, upload.path)
            answer = await asyncio.to_thread(
                describe_prediction,
                prediction,
                service.info,
                request_id=request.state.request_id,
                spacing=spacing or upload.spacing or (case.spacing if case else None),
                evidence=evidence,
                case=None if case is None else describe_case(case.row),
            )
            return Response(answer.model_dump_json(), media_type="application/json")

    @app.get(MODEL, responses=problems(*refused, 500), dependencies=secret)
    async def model() -> ModelAnswer:
        """Say which model is served, and how much may be sent."""
        limits = Limits(
            max_bytes=settings.max_bytes, max_pixels=settings.max_pixels, queue=settings.queue
        )
        name = None
        if cases is not None:
            name = (await asyncio.to_thread(cases.dataset)).spec.name
        return describe_model(service.info, limits, name)

    @app.get(HEALTH, responses=problems(403, 500, 503))
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
            **problems(*refused, 500),
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


def _segmentation(service: Service, upload: Upload, prediction: Prediction) -> bytes:
    with called(upload.path, NAME):
        return image_segmentation(upload.path, prediction.mask, service.info)
