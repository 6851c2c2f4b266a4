"""Predict cases of the served dataset, slices with the neighbors that count in their average."""

from __future__ import annotations

from dxseg.data.table.cases import spacing_of
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.volumes import SlicePosition, slice_positions
from dxseg.errors import DxsegError
from dxseg.evaluation.stream import by_volume
from dxseg.inference.along_axis import smoothing_reach
from dxseg.inference.label_prompt import parse_label_prompt
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.inference.sources import SpacedImage
from dxseg.server.case_queue import CaseQueue, FoundCase
from dxseg.server.service import Service

_IMAGE = "the image"  # in messages: the name of a file may contain a patient's


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
    image = SpacedImage(case.image, case.spacing)
    positions = _neighborhood(cases.dataset(), case, model.info.smoothing_mm)
    if len(positions) < 2:
        return await service.predict(model, image, label_prompt, _IMAGE, return_image=return_image)
    parse_label_prompt(label_prompt, model.info)
    name, dataset = str(case.row["case_id"]), cases.dataset()
    rows = dataset.cases.set_index("case_id", drop=False).loc[list(positions)]

    def run() -> Prediction | DxsegError:
        items = (
            (str(row.case_id), SpacedImage(dataset.image_path(row), spacing_of(row, dataset.spec)))
            for row in rows.itertuples()
        )
        labels = {name: label_prompt} if label_prompt else None
        found = model.stream(
            items,
            labels=labels,
            positions=positions,
            keep_images=return_image,
            whole_volumes=False,
        )
        return dict(found)[name]

    result = await service.run_task(run)
    if isinstance(result, DxsegError):
        raise result
    return result


def _neighborhood(dataset: Dataset, case: FoundCase, sigma_mm: float) -> dict[str, SlicePosition]:
    """Positions of a slice and of those that count in its average; none of other images."""
    volume = case.row["volume_id"]
    if not (sigma_mm and volume):
        return {}
    rows = by_volume(dataset.cases[dataset.cases["volume_id"].eq(volume)])
    physical = dataset.spec.spacing_unit == "mm"
    placed = zip(rows["case_id"], slice_positions(rows, physical=physical), strict=True)
    positions = {str(name): position for name, position in placed if position is not None}
    own = positions.get(str(case.row["case_id"]))
    if own is None:
        return {}
    reach = smoothing_reach(sigma_mm, own.spacing)
    return {name: one for name, one in positions.items() if abs(one.index - own.index) <= reach}
