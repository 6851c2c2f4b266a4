"""Route of the label map of a volume of the dataset."""

from __future__ import annotations

import asyncio
import base64
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.data.readers.nifti_writer import write_label_map_at
from dxseg.data.table.annotations import find_case
from dxseg.errors import DxsegError, UsageError, quote
from dxseg.server.case_queue import CaseQueue
from dxseg.server.middleware import CASE_LABELS
from dxseg.server.routes.masks import label_map
from dxseg.server.schemas import CaseId, CocoRLE
from dxseg.server.service import DATASET, Service, problems
from dxseg.server.volume_grids import read_volume_grid

_Masks = dict[CaseId, dict[str, CocoRLE]]


class CaseLabelsRequest(BaseModel):
    """A volume of the dataset, and masks that are not saved in it."""

    case_id: CaseId = Field(description="Of one of its slices.")
    drawn: _Masks = Field({}, description="By case_id; each by class, all of the model's.")
    predicted: _Masks = Field(
        {}, description="As `drawn`; only for slices whose mask the dataset does not know."
    )


class CaseLabelsResponse(BaseModel):
    """A label map in the grid of the volume."""

    nifti: str = Field(description="A .nii.gz file, in base64: 0 background, 1, 2, ... classes.")
    drawn: int = Field(description="Slices with the mask of `drawn`.")
    known: int = Field(description="Slices with the dataset's mask, or a lesion-free label.")
    predicted: int = Field(description="Slices with the mask of `predicted`.")
    empty: int = Field(description="Slices without any mask, also dropped ones: background.")


def add_case_label_route(app: FastAPI, service: Service, cases: CaseQueue) -> None:
    """Add the route.

    Args:
        app: Gets the route.
        service: The model.
        cases: Of the dataset.
    """
    # One label map at a time: each takes a few bytes a voxel.
    combining = asyncio.Lock()

    @app.post(
        CASE_LABELS,
        responses=problems(400, *service.refused, 404, 408, 413, 422, 500, 503),
        dependencies=service.secret,
    )
    async def label_case_volume(sent: CaseLabelsRequest) -> CaseLabelsResponse:
        """Combine the masks of a volume into a label map."""
        async with service.with_timeout(), combining:
            with alias_in_errors(cases.root, DATASET):
                return await asyncio.to_thread(_combine, sent, service, cases)


def _combine(sent: CaseLabelsRequest, service: Service, cases: CaseQueue) -> CaseLabelsResponse:
    dataset = cases.dataset()
    volume_id = str(find_case(dataset, sent.case_id)["volume_id"])
    if not volume_id:
        raise UsageError(f"case {quote(sent.case_id)}: an image; expected a slice of a volume")
    chosen = dataset.cases["volume_id"].eq(volume_id) & dataset.cases["split"].ne("dropped")
    rows: list[Any] = list(dataset.cases[chosen].itertuples())
    others = {*sent.drawn, *sent.predicted} - {row.case_id for row in rows}
    if others:
        raise UsageError(f"case {quote(min(others))}: no slice of the volume {quote(volume_id)}")
    grid = read_volume_grid(dataset, volume_id, service.settings.max_volume_bytes)
    masks = np.zeros(grid.sliced.shape, np.uint8)
    counts = dict.fromkeys(("drawn", "known", "predicted"), 0)
    for row, lesion_free in zip(rows, dataset.lesion_free[chosen], strict=True):
        if row.case_id in sent.drawn:
            kind, mask = "drawn", label_map(sent.drawn[row.case_id], service)
        elif (known := dataset.read_mask(row)) is not None:
            kind, mask = "known", known
        elif lesion_free:
            kind, mask = "known", np.zeros(masks.shape[1:], np.uint8)
        elif row.case_id in sent.predicted:
            kind, mask = "predicted", label_map(sent.predicted[row.case_id], service)
        else:
            continue
        if mask.shape != masks.shape[1:]:
            size = masks.shape[1:]
            raise DxsegError(f"case {quote(row.case_id)}: a mask of {mask.shape}; expected {size}")
        masks[grid.place(row)] = mask
        counts[kind] += 1
    labels = np.ascontiguousarray(grid.sliced.restore(masks))
    content = _nifti(labels, grid.affine, service.upload_dir.path)
    return CaseLabelsResponse(
        nifti=base64.b64encode(content).decode("ascii"),
        **counts,
        empty=len(masks) - sum(counts.values()),
    )


def _nifti(labels: NDArray[np.uint8], affine: NDArray[np.float64], folder: Path) -> bytes:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        target = Path(temporary) / "labels.nii.gz"
        write_label_map_at(target, labels, affine)
        return target.read_bytes()
