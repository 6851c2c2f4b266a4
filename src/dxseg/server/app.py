"""The server's FastAPI app: its routes and the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, HTTPException, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dxseg.errors import UsageError
from dxseg.inference.model_info import DXSEG_VERSION
from dxseg.inference.predictor import Predictor
from dxseg.server.case_queue import CaseQueue
from dxseg.server.claims import Claims
from dxseg.server.middleware import HEALTH, METRICS, MODEL, RequestGuardMiddleware
from dxseg.server.problem_details import add_problem_handlers
from dxseg.server.retraining.trainer import Trainer
from dxseg.server.routes.case_labels import add_case_label_route
from dxseg.server.routes.cases import add_case_routes
from dxseg.server.routes.label_studio import add_label_studio_routes
from dxseg.server.routes.masks import add_mask_routes
from dxseg.server.routes.predict import add_predict_route
from dxseg.server.routes.reviews import add_review_routes
from dxseg.server.routes.training import add_training_routes
from dxseg.server.routes.volumes import add_volume_routes
from dxseg.server.schemas import Health, Limits, ModelResponse, describe_model
from dxseg.server.service import Service, problems
from dxseg.server.settings import Settings

WEB = Path(str(files("dxseg") / "server" / "web"))
"""The page's files, served below `/`."""

_DESCRIPTION = """Lesion segmentation of single images with one trained model.
Research software, **not a medical device**: not for diagnosis or treatment."""


def create_app(
    predictor: Predictor,
    settings: Settings,
    *,
    cases: CaseQueue | None = None,
    trainer: Trainer | None = None,
    web: Path = WEB,
) -> FastAPI:
    """Make the server's ASGI app.

    Args:
        predictor: Of the model to serve.
        settings: Limits, and the token.
        cases: Of the dataset that masks are saved into; default: none.
        trainer: Of that dataset; its lock is released when the lifespan ends; default: no training.
        web: Folder of the page; may be missing.

    Returns:
        The app. With `app.state.stopping = True` it accepts no more images; its lifespan must run.

    Raises:
        UsageError: A dataset is served without a token.
    """
    if cases is not None and settings.token is None:
        # Otherwise every user of the machine, and pages in their browsers, could read and write it.
        raise UsageError(f"{cases.root}: a dataset needs a token; give one")
    service = Service(predictor, settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            if trainer is not None:
                await asyncio.to_thread(trainer.start)
            yield
        finally:
            if trainer is not None:
                await asyncio.to_thread(trainer.close)
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="dxseg",
        version=DXSEG_VERSION,
        description=_DESCRIPTION,
        # Their pages would load scripts from other sites.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.stopping, app.state.service = False, service
    add_problem_handlers(app)
    app.add_middleware(
        RequestGuardMiddleware,
        settings=settings,
        metrics=service.metrics,
        worker=service.worker,
        stopping=lambda: app.state.stopping,
    )
    _add_status_routes(app, service, cases, trainer)
    add_predict_route(app, service, cases)
    add_volume_routes(app, service)
    if cases is not None:
        claims = Claims()
        add_case_routes(app, service, cases, claims)
        add_case_label_route(app, service, cases)
        add_mask_routes(app, service, cases, claims)
        add_review_routes(app, service, cases, claims)
        add_label_studio_routes(app, service, cases)
    if trainer is not None:
        add_training_routes(app, service, trainer)
    if web.is_dir():
        app.mount("/", StaticFiles(directory=web, html=True), name="web")
    return app


def _add_status_routes(
    app: FastAPI, service: Service, cases: CaseQueue | None, trainer: Trainer | None
) -> None:
    settings, secret, refused = service.settings, service.secret, service.refused

    @app.get(MODEL, responses=problems(*refused, 500), dependencies=secret)
    async def model() -> ModelResponse:
        """Return the served model and the limits of requests."""
        limits = Limits(
            max_bytes=settings.max_bytes, max_pixels=settings.max_pixels, queue=settings.queue
        )
        name = None
        if cases is not None:
            name = (await asyncio.to_thread(cases.dataset)).spec.name
        return describe_model(service.model.info, limits, name, training=trainer is not None)

    @app.get(HEALTH, responses=problems(403, 500, 503))
    async def healthz() -> Health:
        """Return whether the server accepts images."""
        if app.state.stopping or not service.worker.alive:
            raise HTTPException(503, "no more images are accepted")
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
        """Return counts and times in the format of Prometheus."""
        content = generate_latest(service.metrics.registry)
        return Response(content, headers={"Content-Type": CONTENT_TYPE_LATEST})
