"""Routes of uploaded volumes: open one, predict a slice, write a label map."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import shutil
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import FastAPI, File, Request, UploadFile
from numpy.typing import NDArray
from pydantic import BaseModel, Field, NonNegativeInt

from dxseg.data.geometry import Spacing, fit_geometry, voxel_volume, zoom_to
from dxseg.data.readers.budget import decode_budget
from dxseg.errors import UsageError
from dxseg.inference.files.table import model_name
from dxseg.inference.files.volumes import predict_slices
from dxseg.inference.label_prompt import parse_label_prompt
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.server.middleware import VOLUME_LABELS, VOLUME_SLICE, VOLUMES
from dxseg.server.routes.masks import label_map
from dxseg.server.schemas import CocoRLE, PredictionResponse, describe_prediction
from dxseg.server.service import Service, problems
from dxseg.server.settings import Settings
from dxseg.server.slice_stacks import SliceStack, read_slices
from dxseg.server.uploads import NAME, check_pixels, save_upload
from dxseg.server.volume_store import OpenVolume, VolumeStore

VolumeKey = Annotated[str, Field(max_length=64, description="From `POST /v1/volumes`.")]
_LABELS = "labels.nii.gz"
_TOGETHER = 16
"""Slices that are predicted together for a label map; other requests wait as long."""


class VolumeResponse(BaseModel):
    """A volume that is open."""

    volume: str = Field(description="Its random name, while the server keeps it.")
    slices: int
    height: int = Field(description="Of a slice, pixels.")
    width: int = Field(description="Of a slice, pixels.")
    spacing_mm: Spacing | None = Field(description="Height and width of a pixel.")


class SliceRequest(BaseModel):
    """Which slice to predict."""

    volume: VolumeKey
    index: NonNegativeInt = Field(description="From 0.")
    label_prompt: str = Field("", description="The label of the slice where it is known.")


class LabelMapRequest(BaseModel):
    """The masks that are known; the others are predicted."""

    volume: VolumeKey
    masks: dict[NonNegativeInt, dict[str, CocoRLE]] = Field(
        description="By slice, from 0; each by class, all of the model's."
    )


class LabelMapResponse(BaseModel):
    """A label map in the grid of the volume."""

    nifti: str = Field(description="A .nii.gz file, in base64: 0 background, 1, 2, ... classes.")
    given: int = Field(description="Slices with the mask that was sent.")
    predicted: int = Field(description="Slices with the predicted mask.")


def add_volume_routes(app: FastAPI, service: Service) -> None:
    """Add the routes.

    Args:
        app: Gets the routes.
        service: The model.
    """
    secret, refused = service.secret, service.refused
    volumes = _Volumes(service)
    answers = problems(400, *refused, 404, 408, 413, 422, 429, 500, 503)

    @app.post(
        VOLUMES,
        responses=problems(400, *refused, 408, 413, 422, 429, 500, 503),
        dependencies=secret,
    )
    async def open_volume(
        files: Annotated[
            list[UploadFile],
            File(description="One NIfTI, MetaImage, NRRD or DICOM file, or all of a DICOM series."),
        ],
    ) -> VolumeResponse:
        """Open a volume, or the frames of an object; it stays open for a while."""
        async with service.with_timeout():
            opened = await volumes.open(files, service.model.info)
        slices, height, width = opened.slices.shape
        return VolumeResponse(
            volume=opened.key,
            slices=slices,
            height=height,
            width=width,
            spacing_mm=opened.slices.spacing,
        )

    @app.post(VOLUME_SLICE, responses=answers, dependencies=secret)
    async def predict_slice(request: Request, sent: SliceRequest) -> PredictionResponse:
        """Segment a slice; returns class activation maps and the slice too."""
        model = service.model
        opened = volumes.find(sent.volume, [sent.index], model.info)
        async with service.with_timeout():
            prediction = await volumes.predict(model, opened, sent.index, sent.label_prompt)
            assert prediction.image is not None, "it was asked for"
            return await asyncio.to_thread(
                describe_prediction,
                dataclasses.replace(prediction, image=opened.slices.shown(prediction.image)),
                model.info,
                request_id=request.state.request_id,
                spacing=opened.slices.spacing,
                evidence=True,
                values=await asyncio.to_thread(opened.slices.values, sent.index),
            )

    @app.post(VOLUME_LABELS, responses=answers, dependencies=secret)
    async def label_volume(sent: LabelMapRequest) -> LabelMapResponse:
        """Combine masks into a label map; slices without one are predicted."""
        model = service.model
        opened = volumes.find(sent.volume, sent.masks, model.info)
        async with service.with_timeout():
            content = await volumes.label_map(model, opened, sent.masks)
        given = len(sent.masks)
        return LabelMapResponse(
            nifti=base64.b64encode(content).decode("ascii"),
            given=given,
            predicted=opened.slices.shape[0] - given,
        )


class _Volumes:
    """The volumes that are open, and what is done with them."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.store = VolumeStore(service.upload_dir.path, service.settings.max_volume_bytes)
        # One label map at a time: each takes a byte a voxel.
        self.combining = asyncio.Lock()

    async def open(self, files: list[UploadFile], info: ModelInfo) -> OpenVolume:
        """Save and read an upload."""
        folder = self.store.new_folder()
        try:
            paths = [await asyncio.to_thread(save_upload, one.file, folder) for one in files]
            with self.service.inspecting():
                read = partial(_read, paths, info, self.service.settings)
                return await asyncio.to_thread(self.store.add, folder, info.slicing, read)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def find(self, key: str, indices: Iterable[int], info: ModelInfo) -> OpenVolume:
        """Find a volume, and check that it has some slices."""
        opened = self.store.get(key, info.slicing)
        count = opened.slices.shape[0]
        for index in indices:
            if index >= count:
                raise UsageError(f"slice {index}: expected 0 to {count - 1}")
        return opened

    async def predict(
        self, model: Predictor, opened: OpenVolume, index: int, label_prompt: str
    ) -> Prediction:
        """Predict a slice; components of the volume stay, as its other slices are not known."""
        parse_label_prompt(label_prompt, model.info)

        def run() -> Prediction:
            labels = {index: label_prompt} if label_prompt else None
            return dict(_slices(model, opened, range(index, index + 1), labels))[index]

        found = await self.service.run_task(run)
        if not label_prompt:
            opened.keep(model_name(model.info), index, found.mask)
        return found

    async def label_map(
        self, model: Predictor, opened: OpenVolume, given: Mapping[int, dict[str, CocoRLE]]
    ) -> bytes:
        """Make a NIfTI file of masks that are given, and predicted ones where none is."""
        async with self.combining:
            masks = np.zeros(opened.slices.shape, np.uint8)
            known = opened.kept(model_name(model.info))
            for index in range(len(masks)):
                if index in given:
                    masks[index] = await asyncio.to_thread(self._mask, given[index], index, opened)
                    continue
                if index not in known:
                    known |= await self._predict_from(model, opened, index, given)
                masks[index] = known[index]
            return await asyncio.to_thread(_finish, model.info, opened, masks, list(given))

    async def _predict_from(
        self, model: Predictor, opened: OpenVolume, first: int, given: Iterable[int]
    ) -> dict[int, NDArray[np.uint8]]:
        """Predict and keep the masks of a slice and of some that follow it."""
        last = min([first + _TOGETHER, opened.slices.shape[0], *(i for i in given if i > first)])

        def run() -> dict[int, NDArray[np.uint8]]:
            masks = {}
            for index, found in _slices(model, opened, range(first, last), None):
                masks[index] = found.mask
                opened.keep(model_name(model.info), index, found.mask)
            return masks

        return await self.service.run_task(run)

    def _mask(self, runs: dict[str, CocoRLE], index: int, opened: OpenVolume) -> NDArray[np.uint8]:
        mask, size = label_map(runs, self.service), opened.slices.shape[1:]
        if mask.shape != size:
            raise UsageError(f"slice {index}: a mask of {mask.shape}; expected {size}")
        return mask


def _read(paths: list[Path], info: ModelInfo, settings: Settings) -> SliceStack:
    with decode_budget(settings.max_decoded_bytes):
        slices = read_slices(paths, info, settings.max_volume_bytes)
    check_pixels(NAME, slices.shape[1:], settings.max_pixels)
    return slices


def _slices(
    model: Predictor, opened: OpenVolume, wanted: range, labels: Mapping[int, str] | None
) -> Iterator[tuple[int, Prediction]]:
    slices = opened.slices
    return predict_slices(
        model,
        slices.image,
        wanted,
        slices.shape[0],
        spacing=slices.spacing,
        distance=slices.distance,
        labels=labels,
        keep_images=len(wanted) == 1,
    )


def _finish(
    info: ModelInfo, opened: OpenVolume, masks: NDArray[np.uint8], given: list[int]
) -> bytes:
    """Remove components of the volume from predicted masks; make the file."""
    spacing, distance = opened.slices.spacing, opened.slices.distance
    if distance is not None and info.components is not None and info.components.by_volume:
        _, height, width = masks.shape
        zoom = zoom_to(info.preprocessing.spacing, spacing)
        size = info.preprocessing.image_size
        if info.sliding_window:  # what is larger is cut, not reduced
            size = max(size, *info.preprocessing.size_at_spacing(masks[0], spacing))
        scale = fit_geometry(height, width, size, zoom).area_scale
        voxel = voxel_volume(spacing, distance)
        filtered = info.components.apply(masks, scale=scale, voxel_mm3=voxel)
        filtered[given] = masks[given]
        masks = filtered
    return _nifti(opened, masks)


def _nifti(opened: OpenVolume, masks: NDArray[np.uint8]) -> bytes:
    target = opened.folder / f"{id(masks):x}-{_LABELS}"
    try:
        opened.slices.write(masks, target)
        return target.read_bytes()
    finally:
        target.unlink(missing_ok=True)
