"""Schemas of responses, which OpenAPI describes, and making them from predictions."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt

from dxseg.data.exporters.coco_rle import encode_runs
from dxseg.data.geometry import Spacing
from dxseg.data.readers.raster import Pixels
from dxseg.data.readers.slicing import Slicing, shown_slice
from dxseg.inference.files.overlay import display_rgb
from dxseg.inference.files.png import encode_png, mask_levels
from dxseg.inference.files.table import model_name
from dxseg.inference.model_info import NOTICE, ModelInfo
from dxseg.inference.pipeline import Prediction
from dxseg.server.stored_values import StoredValues

CaseId = Annotated[str, Field(max_length=200, description="As in `cases.csv`.")]
MaskPath = Annotated[str, Field(max_length=4096)]
Reader = Annotated[
    str, Field(max_length=64, description="Random name of the browser's tab; not stored.")
]


_MAP_SIDE = 1024


class ImageInfo(BaseModel):
    """The image that was sent."""

    height: int = Field(description="Pixels.")
    width: int = Field(description="Pixels.")
    spacing_mm: Spacing | None = Field(
        description="Height and width of a pixel, from the request or the DICOM header."
    )


class Area(BaseModel):
    """How much of the image a class covers."""

    pixels: int
    mm2: float | None = Field(description="Where the spacing is known.")


class CocoRLE(BaseModel):
    """A binary mask, uncompressed run-length encoding of COCO."""

    size: tuple[PositiveInt, PositiveInt] = Field(description="Height and width.")
    counts: list[NonNegativeInt] = Field(
        description="Lengths of alternating runs of 0 and 1, starting with 0, down the columns."
    )


class MaskOut(BaseModel):
    """The predicted mask, at the size of the image."""

    png: str = Field(
        description="8-bit gray PNG in base64: 0 and 255, or class numbers where the model has "
        "several classes."
    )
    rle: dict[str, CocoRLE] = Field(description="By class.")


class CaseResponse(BaseModel):
    """A case of the dataset."""

    case_id: str
    label: str = Field(description="As the dataset has it.")
    mask: str = Field(description='Path of its mask in the dataset; "" for none.')


class PredictionResponse(BaseModel):
    """The prediction for an image."""

    request_id: str
    model: str = Field(description="First digits of the SHA-256 of the weights.")
    image: ImageInfo
    label_prompt: str = Field(description='The label prompt that was used; "" for none.')
    label_probabilities: dict[str, float] | None = Field(
        description="By label, the network's own output; null for a network without labels."
    )
    confidence: float = Field(description="Confidence of the mask, 0 to 1.")
    area: dict[str, Area] = Field(description="By class.")
    mask: MaskOut
    evidence: dict[str, str] | None = Field(
        description="Class activation maps: by label, an 8-bit gray PNG in base64 at the network's "
        "resolution, 255 is certain. Null unless requested, or for a network without them."
    )
    image_png: str | None = Field(
        description="The image as it was read: an 8-bit PNG in base64, gray or RGB. Null unless "
        "requested."
    )
    probability_maps: dict[str, str] | None = Field(
        description="By class, the mask's probability as an 8-bit gray PNG in base64, at most 1024 "
        "pixels a side; only with return_image."
    )
    image_values: StoredValues | None = Field(
        description="The values of a gray image of more than 8 bit; only with return_image."
    )
    case: CaseResponse | None = Field(
        description="The case of the dataset whose image this is, byte for byte; only with "
        "return_image."
    )
    notice: str = NOTICE


class Limits(BaseModel):
    """Limits of requests."""

    max_bytes: int = Field(description="Of a request.")
    max_pixels: int = Field(description="Height times width of an image.")
    queue: int = Field(description="Images in flight.")


class ModelResponse(BaseModel):
    """The served model."""

    model: str = Field(description="First digits of the SHA-256 of the weights.")
    dxseg_version: str = Field(description="Version that trained it.")
    architecture: str
    labels: list[str]
    lesion_free: list[str] = Field(description="Labels that mean an empty mask.")
    multi_label: bool = Field(description="Whether an image may have several labels.")
    evidence: bool = Field(
        description="Whether it gives class activation maps that were trained on labels."
    )
    mask_classes: list[str]
    threshold: float = Field(description="Probability from which a pixel is lesion.")
    rule_out_threshold: float | None = Field(
        description="Lesion probability below which masks are empty."
    )
    rule_in_threshold: float | None = Field(
        description="Lesion probability above which an image counts as one with a lesion."
    )
    image_size: int = Field(description="Side of the network's input, pixels.")
    channels: int
    dtype: str = Field(description="Of the pixels that it was trained on.")
    limits: Limits
    dataset: str | None = Field(description="Name of the dataset that masks are saved into.")
    training: bool = Field(description="Whether the server trains on that dataset.")
    notice: str = NOTICE


class Health(BaseModel):
    """Status of the server."""

    status: str


class Problem(BaseModel):
    """Why there is no result (problem details, RFC 9457)."""

    type: str = Field(
        "about:blank",
        description="`urn:dxseg:problem:volume` where a volume was sent as one image.",
    )
    title: str
    status: int
    detail: str
    request_id: str


def describe_model(
    info: ModelInfo, limits: Limits, dataset: str | None, *, training: bool
) -> ModelResponse:
    """Describe the served model.

    Args:
        info: Of the model; its training notes are left out.
        limits: Of the server.
        dataset: Name of the dataset that masks are saved into; None without one.
        training: Whether the server trains.
    """
    copied = (
        *("labels", "lesion_free", "multi_label", "mask_classes"),
        *("threshold", "rule_out_threshold", "rule_in_threshold"),
    )
    return ModelResponse(
        model=model_name(info),
        dxseg_version=info.dxseg_version,
        architecture=info.model.architecture,
        image_size=info.preprocessing.image_size,
        channels=info.preprocessing.channels,
        dtype=info.preprocessing.dtype,
        evidence=info.model.contains_stage1,
        limits=limits,
        dataset=dataset,
        training=training,
        **{name: getattr(info, name) for name in copied},
    )


def describe_prediction(
    prediction: Prediction,
    info: ModelInfo,
    *,
    request_id: str,
    spacing: Spacing | None,
    evidence: bool,
    values: StoredValues | None = None,
    case: CaseResponse | None = None,
) -> PredictionResponse:
    """Make the response for a prediction.

    Args:
        prediction: Of one image.
        info: Of the model.
        request_id: Of the request.
        spacing: Height and width of a pixel in millimeters, where they are known.
        evidence: Whether to include evidence maps.
        values: Of a deep image, for viewing.
        case: Of the dataset, where the image belongs to one.
    """
    mask, classes = prediction.mask, info.mask_classes
    binary = {name: mask == number for number, name in enumerate(classes, 1)}
    height, width = mask.shape
    return PredictionResponse(
        request_id=request_id,
        model=model_name(info),
        image=ImageInfo(height=height, width=width, spacing_mm=spacing),
        label_prompt=prediction.label_prompt,
        label_probabilities=prediction.label_probabilities,
        confidence=prediction.confidence,
        area={name: _area(int(one.sum()), spacing) for name, one in binary.items()},
        mask=MaskOut(
            png=_png(mask_levels(mask, len(classes))),
            rle={name: run_lengths(one) for name, one in binary.items()},
        ),
        evidence=_evidence(prediction, info) if evidence else None,
        image_png=None
        if prediction.image is None
        else _png(_display_gray_or_rgb(prediction.image)),
        probability_maps=None if prediction.image is None else _probability_maps(prediction, info),
        image_values=values,
        case=case,
    )


def describe_case(row: Any) -> CaseResponse:
    """Make the response for a case.

    Args:
        row: Of the dataset's table.
    """
    return CaseResponse(case_id=row["case_id"], label=row["label"], mask=row["mask"])


def with_shown_slice(prediction: Prediction, slicing: Slicing | None) -> Prediction:
    """The prediction of a slice with the slice itself as its image, without its neighbors."""
    if prediction.image is None:
        return prediction
    return replace(prediction, image=shown_slice(prediction.image, slicing))


def run_lengths(mask: NDArray[np.bool_]) -> CocoRLE:
    """Encode a binary mask (H, W) as COCO does, uncompressed."""
    return CocoRLE(size=mask.shape, counts=encode_runs(mask))


def _display_gray_or_rgb(image: Pixels) -> NDArray[np.uint8]:
    rgb = display_rgb(image)
    return rgb if image.shape[2] == 3 else rgb[:, :, 0]


def _area(pixels: int, spacing: Spacing | None) -> Area:
    return Area(pixels=pixels, mm2=None if spacing is None else pixels * spacing[0] * spacing[1])


def _evidence(prediction: Prediction, info: ModelInfo) -> dict[str, str] | None:
    if prediction.evidence is None or len(prediction.evidence) != len(info.labels):
        return None
    levels = np.rint(prediction.evidence * 255).astype(np.uint8)
    return {name: _png(one) for name, one in zip(info.labels, levels, strict=True)}


def _probability_maps(prediction: Prediction, info: ModelInfo) -> dict[str, str]:
    step = -(-max(prediction.mask.shape) // _MAP_SIDE)
    levels = np.rint(prediction.probabilities[:, ::step, ::step] * 255).astype(np.uint8)
    return {name: _png(one) for name, one in zip(info.mask_classes, levels, strict=True)}


def _png(pixels: NDArray[Any]) -> str:
    return base64.b64encode(encode_png(pixels)).decode("ascii")
