"""Equal false positives: one rule by which every method decides which images get a mask (ours).

Methods mark different fractions of lesion-free images, and the more a method marks, the more
lesions it finds. So each is also evaluated at one rate: an image gets a mask if its decision score
(`dxseg.metrics.image_level.decision_score`) exceeds a threshold, which at most that fraction of the
lesion-free *validation* images exceeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.cases import EvaluationProtocol, score_case
from dxseg.evaluation.stream import known_rows, predict_rows, predicted_cases

if TYPE_CHECKING:
    from dxseg.inference.predictor import Predictor

FALSE_POSITIVE_RATE = 0.1


def validation_scores(
    predictor: Predictor, data: Dataset, splits: pd.DataFrame, protocol: EvaluationProtocol
) -> list[float]:
    """Decision scores of the lesion-free validation images, by their label or by a usable mask.

    Args:
        predictor: Of the model.
        data: The dataset.
        splits: Its splits, in the order of the dataset.
        protocol: The labels of the model.

    Raises:
        DxsegError: An image or mask of the validation images is missing or unreadable.
    """
    rows, _ = known_rows(data, splits, "validation")
    by_label = rows["label"].ne("") & (rows["label_lesion_free"] | rows["label_organs_only"])
    by_mask = rows["label"].eq("") & rows["use_truth"]
    rows = rows[by_label | by_mask].reset_index(drop=True)
    stream = predict_rows(predictor, data, rows)
    scored = [score_case(case, protocol) for case in predicted_cases(data, rows, stream)]
    return [row["decision_score"] for row in scored if row["lesion_free"]]
