"""Shortcut probes: is the label predicted by what should not tell it?

A classifier finds whatever separates the labels: calipers that were drawn on lesions only, the text
of one scanner, the crop of one site. It then prompts the segmenter with that, and a test set from
the same source does not show it. Each probe sees one thing that the lesion has little to do with
(DeGrave, Janizek, Lee, "AI for radiographic COVID-19 detection selects shortcuts over signal",
Nature Machine Intelligence 3, 2021, showed the harm):

* image-size: height and width, by a random forest;
* border: the outer 8 pixels of the image at 64x64, where scanner text and crops are;
* thumbnail: the whole image at 8x8, which has room for brightness and layout only.

The last two by logistic regression on 32 principal components. Scores are those of 5-fold
cross-validation in which a group stays on one side; the interval resamples groups.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.splits.perceptual_hash import SIDE
from dxseg.quality.findings import Area, Probe
from dxseg.quality.scan import Survey

CASES = 4000
"""Cases that are probed at most, drawn evenly over the table; which bounds time and memory."""

WARN_AUROC, WARN_LOW = 0.7, 0.6
FEWEST_GROUPS = 10
_FOLDS = 5
_RESAMPLES = 200
_TREES = 50
_THUMBNAIL = 8
_COMPONENTS = 32
_NAMES = ("image-size", "border", "thumbnail")


def run_probes(
    found: Survey,
    group: NDArray[np.int64],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Probe]:
    """Run the three probes.

    A label takes part if it and the rest have at least ten groups each. Of two exclusive labels one
    is enough.

    Args:
        found: What is known of the files.
        group: Of cases that belong together, (N,).
        progress: Called with (done, total) probes.

    Returns:
        One a name, without figures where no label takes part.
    """
    rows, targets = _labelled(found)
    group = group[rows]
    chosen = _labels_to_probe(found, targets, group)
    probes = []
    for done, name in enumerate(_NAMES, 1):
        scores = {}
        if chosen:
            features = _features(name, found, rows)
            scores = {
                label: _out_of_fold(name, features, targets[:, column], group)
                for label, column in chosen.items()
            }
        truth = {label: targets[:, column] for label, column in chosen.items()}
        probes.append(_probe(name, truth, scores, group))
        if progress is not None:
            progress(done, len(_NAMES))
    return probes


def _labelled(found: Survey) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Choose cases, and give their labels as (n, L)."""
    targets = found.dataset.label_targets()
    if targets.ndim == 1:
        known = targets >= 0
        targets = targets[:, None] == np.arange(len(found.dataset.spec.labels))
    else:
        known = ~np.isnan(targets).any(axis=1)
        targets = targets > 0
    rows = np.flatnonzero(known & found.readable)
    if len(rows) > CASES:
        rows = np.sort(np.random.default_rng(0).choice(rows, CASES, replace=False))
    return rows, targets[rows]


def _labels_to_probe(
    found: Survey, targets: NDArray[np.bool_], group: NDArray[np.int64]
) -> dict[str, int]:
    names = found.dataset.spec.labels
    enough = {
        name: column
        for column, name in enumerate(names)
        if min(len(np.unique(group[targets[:, column] == side])) for side in (True, False))
        >= FEWEST_GROUPS
    }
    if len(enough) == len(names) == 2 and not found.dataset.spec.multi_label:
        enough.popitem()
    return enough


def _features(name: str, found: Survey, rows: NDArray[np.int64]) -> NDArray[Any]:
    if name == "image-size":
        size = found.facts.loc[rows, ["height", "width"]].to_numpy(float)
        return np.column_stack([size, size[:, 0] / size[:, 1], size[:, 0] * size[:, 1]])
    if name == "border":
        return found.strips(rows)
    step = SIDE // _THUMBNAIL
    pixels = found.descriptions(rows).thumbnails.reshape(-1, _THUMBNAIL, step, _THUMBNAIL, step)
    return np.asarray(pixels.mean(axis=(2, 4)).reshape(len(rows), -1))


def _model(name: str, cases: int) -> Any:
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if name == "image-size":
        return RandomForestClassifier(
            _TREES, min_samples_leaf=5, class_weight="balanced_subsample", random_state=0
        )
    return make_pipeline(
        StandardScaler(),
        PCA(min(_COMPONENTS, cases), whiten=True, random_state=0),
        LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000),
    )


def _out_of_fold(
    name: str, features: NDArray[Any], target: NDArray[np.bool_], group: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Score each case by a model that has seen no case of its group, (n,)."""
    scores = np.full(len(target), float(target.mean()))
    for train, test in _folds(target, group):
        if len(np.unique(target[train])) == 2:
            model = _model(name, len(train)).fit(features[train], target[train])
            scores[test] = model.predict_proba(features[test])[:, 1]
    return scores


def _folds(
    target: NDArray[np.bool_], group: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    with warnings.catch_warnings():
        # A fold without a case of the label is no problem: scores of all folds are judged together.
        warnings.simplefilter("ignore", UserWarning)
        yield from StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0).split(
            target, target, group
        )


def _probe(
    name: str,
    truth: dict[str, NDArray[np.bool_]],
    scores: dict[str, NDArray[np.float64]],
    group: NDArray[np.int64],
) -> Probe:
    from sklearn.metrics import roc_auc_score

    distinct, member = np.unique(group, return_inverse=True)
    mean, labels = None, {}
    if scores:
        point = np.array([roc_auc_score(truth[label], scores[label]) for label in truth])
        draws = _draws(truth, scores, member)
        mean = _area(float(point.mean()), draws.mean(axis=1))
        labels = {
            label: _area(float(point[column]), draws[:, column])
            for column, label in enumerate(truth)
        }
    judged = labels if mean is None else {"mean": mean, **labels}
    high = [key for key, a in judged.items() if a.auroc >= WARN_AUROC and a.low >= WARN_LOW]
    return Probe(
        name=name,
        mean=mean,
        labels=labels,
        cases=len(group),
        group_count=len(distinct),
        warned=high,
    )


def _area(point: float, draws: NDArray[np.float64]) -> Area:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Area(auroc=point, low=float(low), high=float(high))


def _draws(
    truth: dict[str, NDArray[np.bool_]],
    scores: dict[str, NDArray[np.float64]],
    member: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Resample whole groups, (draws, labels); one that lacks a label says nothing and is left out.

    With at least ten groups of each label and of the rest, hardly a resample lacks one.
    """
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    groups = int(member.max()) + 1
    draws = []
    for _ in range(_RESAMPLES):
        weight = np.bincount(random.integers(groups, size=groups), minlength=groups)[member]
        if all(weight[truth[label] == side].any() for label in truth for side in (True, False)):
            draws.append([roc_auc_score(truth[k], scores[k], sample_weight=weight) for k in truth])
    return np.array(draws)
