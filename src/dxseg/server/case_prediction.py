"""Predict cases of the served dataset, slices with the neighbors that count in their average."""

from __future__ import annotations

import pandas as pd

from dxseg.data.table.dataset import Dataset
from dxseg.data.table.volumes import SlicePosition
from dxseg.errors import DxsegError
from dxseg.evaluation.stream import by_volume, positions_of, sources_of
from dxseg.inference.along_axis import smoothing_reach
from dxseg.inference.label_prompt import parse_label_prompt
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.inference.sources import SpacedImage
from dxseg.server.case_queue import CaseQueue, FoundCase
from dxseg.server.service import IMAGE, Service


async def predict_case(
    service: Service,
    model: Predictor,
    cases: CaseQueue,
    case: FoundCase,
    label_prompt: str,
    *,
    return_image: bool,
) -> Prediction:
    """Segment the image of a case, as `dxseg predict` and `dxseg evaluate` do.

    Components of a volume stay: its other slices are not predicted.

    Args:
        service: Has the queue.
        model: The one that the request began with.
        cases: The dataset.
        case: The case.
        label_prompt: Its label prompt; "" for none.
        return_image: Whether the prediction carries the decoded pixels.
    """
    dataset, name = cases.dataset(), str(case.row["case_id"])
    rows, positions = _neighborhood(dataset, case, model.info.smoothing_mm)
    if len(rows) < 2:
        image = SpacedImage(case.image, case.spacing)
        return await service.predict(model, image, label_prompt, IMAGE, return_image=return_image)
    parse_label_prompt(label_prompt, model.info)

    def run() -> Prediction | DxsegError:
        found = model.stream(
            sources_of(dataset, rows),
            labels={name: label_prompt} if label_prompt else None,
            positions=positions,
            keep_images=return_image,
            whole_volumes=False,
        )
        return dict(found)[name]

    result = await service.run_task(run)
    if isinstance(result, DxsegError):
        raise result
    return result


def _neighborhood(
    dataset: Dataset, case: FoundCase, sigma_mm: float
) -> tuple[pd.DataFrame, dict[str, SlicePosition]]:
    """A slice and those that count in its average, in their order; none for other images."""
    volume = case.row["volume_id"] if sigma_mm else ""
    rows = by_volume(dataset.cases[dataset.cases["volume_id"].eq(volume) & (volume != "")])
    positions = positions_of(dataset, rows)
    own = positions.get(str(case.row["case_id"]))
    if own is None:
        return rows.head(0), {}
    reach = smoothing_reach(sigma_mm, own.spacing)
    near = {name: one for name, one in positions.items() if abs(one.index - own.index) <= reach}
    return rows[rows["case_id"].isin(near)], near
