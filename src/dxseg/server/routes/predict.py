"""The route that segments an uploaded image."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import FastAPI, File, Form, Request, Response, UploadFile

from dxseg.data.geometry import Spacing
from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.errors import UsageError
from dxseg.inference.files.dicom_seg import image_segmentation
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.pipeline import Prediction
from dxseg.inference.sources import SpacedImage
from dxseg.server.case_queue import CaseQueue
from dxseg.server.middleware import PREDICT
from dxseg.server.schemas import (
    PredictionResponse,
    describe_case,
    describe_prediction,
    with_shown_slice,
)
from dxseg.server.service import Service, problems
from dxseg.server.uploads import NAME, Upload

DICOM = "application/dicom"


def add_predict_route(app: FastAPI, service: Service, cases: CaseQueue | None) -> None:
    """Add the route that segments an uploaded image.

    Args:
        app: Gets the route.
        service: The model.
        cases: Of the served dataset, where the case of an uploaded image is looked up; None without
            a dataset.
    """
    refused = service.refused

    @app.post(
        PREDICT,
        response_model=PredictionResponse,
        responses={
            200: {"content": {DICOM: {"schema": {"type": "string", "format": "binary"}}}},
            **problems(400, *refused, 408, 413, 422, 429, 500, 503),
        },
        dependencies=service.secret,
    )
    async def predict(
        request: Request,
        file: Annotated[UploadFile, File(description="PNG, JPEG, TIFF, BMP, or DICOM.")],
        label_prompt: Annotated[
            str, Form(description="The image's label where it is known, one of the model's.")
        ] = "",
        spacing_y: Annotated[
            float | None, Form(gt=0, lt=1e6, description="Height of a pixel, mm.")
        ] = None,
        spacing_x: Annotated[
            float | None, Form(gt=0, lt=1e6, description="Width of a pixel, mm.")
        ] = None,
        evidence: Annotated[bool, Form(description="Return class activation maps.")] = False,
        return_image: Annotated[
            bool, Form(description="Return the image as it was read, for viewing.")
        ] = False,
        format: Annotated[
            Literal["json", "dicom-seg"] | None,
            Form(description="dicom-seg, or `Accept: application/dicom`, for DICOM uploads."),
        ] = None,
    ) -> Response:
        """Segment one image."""
        model, given = service.model, _spacing(spacing_y, spacing_x)
        accepted = DICOM if DICOM in request.headers.get("accept", "") else ""
        wants_seg = format == "dicom-seg" or (format is None and accepted == DICOM)
        async with service.with_timeout(), service.saved_upload(file) as upload:
            if wants_seg and not upload.is_dicom:
                raise UsageError("a DICOM SEG refers to a DICOM image; expected one as file")
            case = None
            if cases is not None and return_image:
                case = await asyncio.to_thread(cases.same_image, upload.path)
            spacing = given or upload.spacing or (case.spacing if case else None)
            image = SpacedImage(upload.path, spacing)
            prediction = await service.predict(
                model, image, label_prompt, NAME, return_image=return_image
            )
            if wants_seg:
                content = await asyncio.to_thread(_segmentation, model.info, upload, prediction)
                return Response(content, media_type=DICOM)
            prediction = with_shown_slice(prediction, model.info.slicing)
            values = await service.viewer_values(upload.path, NAME, prediction)
            response = await asyncio.to_thread(
                describe_prediction,
                prediction,
                model.info,
                request_id=request.state.request_id,
                spacing=spacing,
                evidence=evidence,
                values=values,
                case=None if case is None else describe_case(case.row),
            )
            return Response(response.model_dump_json(), media_type="application/json")


def _spacing(height: float | None, width: float | None) -> Spacing | None:
    if height is None and width is None:
        return None
    if height is None or width is None:
        raise UsageError("spacing_y and spacing_x: expected both or none")
    return height, width


def _segmentation(info: ModelInfo, upload: Upload, prediction: Prediction) -> bytes:
    with alias_in_errors(upload.path, NAME):
        return image_segmentation(upload.path, prediction.mask, info)
