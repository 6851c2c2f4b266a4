"""Routes of training: how far it is, starting and cancelling it, and using its model."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field

from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.inference.predictor import Predictor
from dxseg.server.middleware import TRAINING, TRAINING_MODEL
from dxseg.server.retraining.trainer import Trainer
from dxseg.server.service import DATASET, Service, problems


class TrainedModel(BaseModel):
    """A trained model with its figures; null where it was not evaluated."""

    model: str = Field(description="First digits of the SHA-256 of the weights.")
    masks: int = Field(description="Training masks of lesions.")
    finished: str = Field(description="UTC, ISO 8601.")
    split: Literal["validation", "test"] | None = Field(description="Cases of the evaluation.")
    dice: float | None = Field(description="Mean Dice of the images with a lesion.")
    low: float | None = Field(description="Lower end of its 95% interval.")
    high: float | None = Field(description="Upper end of its 95% interval.")
    images: int | None = Field(description="Images with a lesion.")


class TrainingProgress(BaseModel):
    """How far a training is."""

    phase: str = Field(description="`preparing`, the name of a stage, or `evaluating`.")
    step: int = Field(description="Optimizer steps that are done, of all stages.")
    steps: int
    fraction: float = Field(description="Of the whole, 0 to 1.")


class ModelComparison(BaseModel):
    """Dice of the new model minus that of the one before, on the same validation images."""

    difference: float | None
    low: float | None = Field(description="Lower end of the 95% interval.")
    high: float | None = Field(description="Upper end of the 95% interval.")
    p_value: float | None
    images: int
    groups: int = Field(description="Patients or groups of them.")


class TrainingResponse(BaseModel):
    """Training and models."""

    state: Literal["idle", "running", "stopped", "done"] = Field(
        description="stopped: it can be continued; done: its model is offered."
    )
    new_masks: int = Field(description="Masks that the model in use was not trained on.")
    train_after: int | None = Field(description="New masks after which a training starts.")
    in_use: TrainedModel
    previous: TrainedModel | None = Field(description="The model before; can be taken back.")
    masks: int | None = Field(description="Training masks of the training.")
    progress: TrainingProgress | None
    seconds_left: float | None = Field(description="Estimated from its pace.")
    problem: str = Field(description='Why it stopped; "" otherwise.')
    offered: TrainedModel | None = Field(description="The new model.")
    comparison: ModelComparison | None


class UseRequest(BaseModel):
    """Which model to use."""

    model: str = Field(max_length=64, description="Of the offered or the previous model.")


def add_training_routes(app: FastAPI, service: Service, trainer: Trainer) -> None:
    """Add the routes.

    Args:
        app: Gets the routes.
        service: Its model is replaced.
        trainer: Of the dataset.
    """
    secret, refused = service.secret, service.refused

    async def described() -> TrainingResponse:
        status = await asyncio.to_thread(trainer.status)
        return TrainingResponse.model_validate(asdict(status))

    def serve(model: Predictor) -> None:
        service.model = model

    @app.get(TRAINING, responses=problems(*refused, 422, 500), dependencies=secret)
    async def training() -> TrainingResponse:
        """Return how far the training is, and the models."""
        with alias_in_errors(trainer.root, DATASET):
            return await described()

    @app.post(TRAINING, responses=problems(*refused, 409, 422, 500), dependencies=secret)
    async def begin() -> TrainingResponse:
        """Start a training with the new masks, or continue one that has stopped."""
        with alias_in_errors(trainer.root, DATASET):
            await asyncio.to_thread(trainer.begin)
            return await described()

    @app.delete(TRAINING, responses=problems(*refused, 409, 422, 500), dependencies=secret)
    async def cancel() -> TrainingResponse:
        """End a training, or drop the model that it offers; its files are removed."""
        with alias_in_errors(trainer.root, DATASET):
            await asyncio.to_thread(trainer.cancel)
            return await described()

    @app.post(
        TRAINING_MODEL,
        responses=problems(400, *refused, 408, 409, 413, 422, 500),
        dependencies=secret,
    )
    async def use(sent: UseRequest) -> TrainingResponse:
        """Use the offered or the previous model; requests in flight end with the one before."""
        with alias_in_errors(trainer.root, DATASET):
            await asyncio.to_thread(trainer.use, sent.model, serve)
            return await described()
