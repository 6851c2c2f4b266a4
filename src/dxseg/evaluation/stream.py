"""Join the cases of a split to their predictions, one in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dxseg.data.splits.known_labels import known_labels
from dxseg.data.table.cases import spacing_of
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.volumes import SlicePosition, slice_positions
from dxseg.errors import DxsegError, UsageError
from dxseg.evaluation.cases import EvaluatedCase, SlicePlace
from dxseg.inference.sources import SpacedImage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dxseg.inference.pipeline import Prediction
    from dxseg.inference.predictor import Predictor

Progress = Callable[[int, int], None]


def split_rows(
    data: Dataset, splits: pd.DataFrame, split: str, source: Path
) -> tuple[pd.DataFrame, int]:
    """Select the cases of a split.

    Args:
        data: The dataset.
        splits: From `read_splits`; masks with `use_mask` False are not used, nor labels that its
            column `label_level` hides.
        split: The name of the split.
        source: Their file, for errors.

    Returns:
        The dataset's columns, `label` without labels of study level; and group_name,
        label_lesion_free, label_organs_only, use_truth, physical (whether distances are in
        millimeters, the same for all rows), volume_slices (how many slices its volume has). Slices
        of a volume come together, in their order. And the number of cases left out because they
        have neither mask nor label.

    Raises:
        UsageError: The split is empty.
        DxsegError: No case has a usable mask or a label.
    """
    rows, left_out = known_rows(data, splits, split)
    if rows.empty and not left_out:
        present = ", ".join(sorted(splits["split"].unique()))
        raise UsageError(f"{source}: no case in split {split!r}; expected one of {present}")
    if rows.empty:
        raise DxsegError(
            f"{source}: no case of split {split!r} has a mask that may be used or a label; "
            "nothing can be evaluated"
        )
    return rows, left_out


def known_rows(data: Dataset, splits: pd.DataFrame, split: str) -> tuple[pd.DataFrame, int]:
    """As `split_rows`, but there may be no such case."""
    hidden = ~splits["use_mask"].to_numpy() if "use_mask" in splits else False
    labeled = known_labels(data, splits)
    slices = data.cases.groupby("volume_id")["case_id"].transform("size")
    rows = data.cases.assign(
        volume_slices=slices.to_numpy(),
        group=splits["group"].to_numpy(),
        label=labeled.image_labels,
        label_lesion_free=labeled.lesion_free.to_numpy(),
        label_organs_only=(labeled.without_lesion & ~labeled.lesion_free).to_numpy(),
        use_truth=data.cases["mask"].ne("").to_numpy() & ~np.asarray(hidden),
    )
    # Over the whole dataset, so that runs on other splits of it use the same names.
    rows["group_name"] = _group_names(rows)
    rows = rows[splits["split"].eq(split).to_numpy()]
    known = rows["use_truth"] | rows["label"].ne("")
    left_out = int((~known).sum())
    rows = by_volume(rows[known])
    spaced = rows[["spacing_y", "spacing_x"]].notna().to_numpy().all()
    rows["physical"] = data.spec.spacing_unit == "mm" and bool(spaced)
    return rows, left_out


def predict_rows(
    predictor: Predictor,
    data: Dataset,
    rows: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    keep_images: bool = False,
) -> Iterator[tuple[str, Prediction | DxsegError]]:
    """Predict images; slices with all others of their volume where the model needs these.

    Args:
        predictor: The model.
        data: The dataset.
        rows: Some of its cases, in the order of `by_volume`.
        labels: Label prompts by case_id.
        keep_images: Whether predictions carry the decoded pixels.

    Yields:
        case_id and prediction, or the error, of each row, in their order.
    """
    wanted = set(rows["case_id"])
    if predictor.info.joins_slices:
        unit = volume_or_case(data.cases)
        order = {name: number for number, name in enumerate(volume_or_case(rows).unique())}
        every = data.cases[unit.isin(order)]
        rows = by_volume(every.iloc[unit[every.index].map(order).argsort(kind="stable")])
    positions = positions_of(data, rows)
    stream = predictor.stream(
        sources_of(data, rows), labels=labels, keep_images=keep_images, positions=positions
    )
    yield from (one for one in stream if one[0] in wanted)


def sources_of(data: Dataset, rows: pd.DataFrame) -> Iterator[tuple[str, SpacedImage]]:
    """The case_id and the image of each row, as `Predictor.stream` takes them."""
    for row in rows.itertuples():
        yield str(row.case_id), SpacedImage(data.image_path(row), spacing_of(row, data.spec))


def positions_of(data: Dataset, rows: pd.DataFrame) -> dict[str, SlicePosition]:
    """Where in their volumes slices are, by case_id; other images have none."""
    physical = data.spec.spacing_unit == "mm"
    placed = zip(rows["case_id"], slice_positions(rows, physical=physical), strict=True)
    return {str(name): position for name, position in placed if position is not None}


def by_volume(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the slices of each volume beside each other, in their order."""
    places = rows["slice_index"].fillna(-1).to_numpy(dtype=np.int64)
    order = np.lexsort((places, pd.factorize(volume_or_case(rows))[0]))
    return rows.iloc[order].reset_index(drop=True)


def volume_or_case(rows: pd.DataFrame) -> pd.Series[str]:
    """Name of the volume of each slice, and of each image that is none."""
    return ("volume\n" + rows["volume_id"]).where(rows["volume_id"].ne(""), rows["case_id"])


def predicted_cases(
    data: Dataset,
    rows: pd.DataFrame,
    predictions: Iterable[tuple[str, Prediction | DxsegError]],
    progress: Progress | None = None,
) -> Iterator[EvaluatedCase]:
    """Join each row to its prediction.

    Args:
        data: The dataset.
        rows: From `split_rows`.
        predictions: One per row, in the same order.
        progress: Called with the number of images done and of all.

    Yields:
        The case, with its mask read from the file.

    Raises:
        DxsegError: A prediction is missing or failed, or a mask cannot be read.
    """
    source = iter(predictions)
    for done, row in enumerate(rows.itertuples(), start=1):
        name, prediction = next(source, (None, None))
        if prediction is None or name != row.case_id:
            raise DxsegError(
                f"case {row.case_id!r} has no prediction; every case of a split needs one, so "
                "nothing was written"
            )
        if isinstance(prediction, DxsegError):
            raise DxsegError(f"case {row.case_id!r}: {prediction}") from prediction
        yield EvaluatedCase(
            case_id=str(row.case_id),
            group=str(row.group_name),
            lesion_free=bool(row.label_lesion_free) if row.label else None,
            label=str(row.label),
            truth=data.read_mask(row) if row.use_truth else None,
            prediction=prediction,
            spacing=spacing_of(row, data.spec) if row.physical else None,
            place=_place(row),
            organs_only=bool(row.label_organs_only),
        )
        if progress is not None:
            progress(done, len(rows))


def _group_names(rows: pd.DataFrame) -> pd.Series[str]:
    """Names of patients where groups are patients, otherwise numbers of groups."""
    pairs = rows[["group", "patient_id"]].drop_duplicates()
    named = bool(pairs["patient_id"].ne("").all())
    same = named and pairs["group"].is_unique and pairs["patient_id"].is_unique
    return rows["patient_id"] if same else rows["group"].astype(str)


def _place(row: Any) -> SlicePlace | None:
    if not row.volume_id:
        return None
    index = None if pd.isna(row.slice_index) else int(row.slice_index)
    spacing = float(row.spacing_z) if row.physical and not pd.isna(row.spacing_z) else None
    return SlicePlace(str(row.volume_id), index, int(row.volume_slices), spacing)
