"""How well the evidence of stage 1 (class activation maps, trained on labels) locates lesions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.evaluation.cases import EvaluatedCase, EvaluationProtocol
from dxseg.evaluation.stream import by_volume, predict_rows
from dxseg.evaluation.summary import without_nan
from dxseg.metrics.image_level import auroc

if TYPE_CHECKING:
    from dxseg.inference.predictor import Predictor

TOP, LOWEST = 0.002, 0.7
"""Fractions of an image's pixels: those with the highest and with the lowest evidence."""
CUTS = np.linspace(0.02, 0.98, 49)
"""Thresholds of evidence that a mask may be cut at."""


class EvidenceQuality:
    """Accumulates figures of evidence against masks, in constant memory.

    The evidence of a lesion is the sum over all labels that mean one, or for multi-label models the
    maximum; interpolated to the size of the image.
    """

    def __init__(self, labels: Sequence[str], protocol: EvaluationProtocol) -> None:
        """Start with no images.

        Args:
            labels: Of the evidence maps, in their order.
            protocol: Which labels and mask classes are lesions.
        """
        self.labels, self.protocol = labels, protocol
        self.images = 0
        self._sums = {"pixel_auroc": 0.0, "top_on_lesion": 0.0, "lowest_on_lesion": 0.0}
        self._dice = np.zeros(len(CUTS))

    def add(self, truth: NDArray[np.uint8] | None, prediction: Any) -> None:
        """Add an image; one without a lesion mask or without trained evidence is left out.

        Args:
            truth: (H, W) label map, None where it is unknown.
            prediction: A `dxseg.inference.predictor.Prediction`.
        """
        maps = getattr(prediction, "evidence", None)
        # A network that was not trained on labels has maps, but they mean nothing.
        if maps is None or prediction.label_probabilities is None:
            return
        if truth is None:
            return
        on_lesion = self.protocol.lesions(truth).ravel()
        if not on_lesion.any() or on_lesion.all():
            return
        values = self._evidence(maps, truth.shape).ravel()
        order = np.argsort(values)
        top, lowest = max(1, round(TOP * len(values))), max(1, round(LOWEST * len(values)))
        self.images += 1
        self._sums["pixel_auroc"] += auroc(on_lesion, values)
        self._sums["top_on_lesion"] += float(on_lesion[order[-top:]].mean())
        self._sums["lowest_on_lesion"] += float(on_lesion[order[:lowest]].mean())
        self._dice += _dice_by_cut(on_lesion, values)

    def _evidence(self, maps: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
        lesion = [name not in self.protocol.lesion_free_labels for name in self.labels]
        enlarged = _enlarge(maps[lesion], size)
        combine = np.max if self.protocol.multi_label else np.sum
        return np.asarray(combine(enlarged, axis=0), np.float32).clip(0, 1)

    def accumulate(self, cases: Iterable[EvaluatedCase]) -> Iterator[EvaluatedCase]:
        """Add cases while passing them on."""
        for case in cases:
            self.add(case.truth, case.prediction)
            yield case

    def summary(self, validation: EvidenceQuality) -> dict[str, Any] | None:
        """The figures, see docs/evaluation.md; None where no image had evidence and a mask.

        Args:
            validation: Of the validation images; the cut is chosen on them.
        """
        if not self.images:
            return None
        place = int(validation._dice.argmax()) if validation.images else None
        figures: dict[str, Any] = without_nan(
            {
                "images": self.images,
                **{name: value / self.images for name, value in self._sums.items()},
                "dice": None if place is None else float(self._dice[place] / self.images),
                "cut": None if place is None else float(CUTS[place].round(2)),
                "validation_images": validation.images,
            }
        )
        return figures


def summarize_evidence(
    measured: EvidenceQuality,
    predictor: Predictor,
    data: Dataset,
    splits: pd.DataFrame,
    split: str,
) -> dict[str, Any] | None:
    """The figures of a split, the cut chosen on the validation images.

    Args:
        measured: Of the images of the split.
        predictor: Of the run; predicts the validation images.
        data: The dataset.
        splits: Its splits, in the order of the dataset.
        split: The split.

    Returns:
        See `EvidenceQuality.summary`.

    Raises:
        DxsegError: An image or mask of the validation images is missing or unreadable.
    """
    if not measured.images or split == "validation":
        return measured.summary(measured)
    validation = EvidenceQuality(measured.labels, measured.protocol)
    _add_validation(validation, predictor, data, splits)
    return measured.summary(validation)


def _add_validation(
    quality: EvidenceQuality, predictor: Predictor, data: Dataset, splits: pd.DataFrame
) -> None:
    """Predict the validation images whose mask may be used, and add their evidence."""
    usable = splits["split"].eq("validation").to_numpy() & data.cases["mask"].ne("").to_numpy()
    if "use_mask" in splits:
        usable &= splits["use_mask"].to_numpy(dtype=bool)
    rows = by_volume(data.cases[usable])
    stream = predict_rows(predictor, data, rows)
    for row, (name, prediction) in zip(rows.itertuples(), stream, strict=True):
        if isinstance(prediction, DxsegError):
            raise DxsegError(f"case {name!r}: {prediction}") from prediction
        quality.add(data.read_mask(row), prediction)


def _enlarge(maps: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Interpolate (L, h, w) to (L, H, W)."""
    import torch
    from torch.nn import functional as F

    enlarged = F.interpolate(
        torch.from_numpy(np.ascontiguousarray(maps))[None],
        (size[0], size[1]),
        mode="bilinear",
        align_corners=False,
    )
    result: NDArray[np.float32] = enlarged[0].numpy()
    return result


def _dice_by_cut(on_lesion: NDArray[np.bool_], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Dice of "evidence of at least the cut" for each of `CUTS`."""
    edges = np.concatenate([[-1], CUTS, [2]])
    # Pixels in each interval; cumulated from above, pixels above each cut.
    found, hit = (
        np.histogram(chosen, edges)[0][::-1].cumsum()[::-1][1:]
        for chosen in (values, values[on_lesion])
    )
    return np.asarray(2 * hit / (found + np.count_nonzero(on_lesion)), np.float64)
