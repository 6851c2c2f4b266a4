"""Shortcut probes: can the label be predicted from something unrelated to the lesion?

A classifier learns whatever separates the labels: calipers that were drawn on lesions only, the
text of one scanner, the crop of one site. Its output is then the prompt of the segmenter, and a
test set from the same source does not reveal it. The input of each probe is one thing that has
little to do with the lesion. DeGrave, Janizek and Lee, "AI for radiographic COVID-19 detection
selects shortcuts over signal", Nature Machine Intelligence 3, 2021, showed the harm.

* image-size: height and width, by a random forest;
* border: the outer 8 pixels of the image at 64x64, which show scanner text and crops;
* thumbnail: the whole image at 8x8, which shows brightness and layout only.

The last two by logistic regression on 32 principal components. Scores are from 5-fold
cross-validation by group; the interval is from a bootstrap of groups.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.splits.perceptual_hash import SIDE
from dxseg.quality.findings import Auroc, Probe
from dxseg.quality.row_findings import RowFinding
from dxseg.quality.scan import Scan

MAX_CASES = 4000
"""Maximum number of cases, selected at random, which bounds time and memory."""

WARN_AUROC, WARN_LOW = 0.7, 0.6
MIN_GROUPS = 10
_FOLDS = 5
_RESAMPLES = 200
_TREES = 50
_THUMBNAIL = 8
_COMPONENTS = 32
_NAMES = ("image-size", "border", "thumbnail")


def run_probes(
    scan: Scan,
    group: NDArray[np.int64],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Probe]:
    """Run the three probes.

    A label is used if it and the other labels have at least ten groups each. Of two exclusive
    labels one is used.

    Args:
        scan: The scanned files.
        group: (N,) group number of each case.
        progress: Called with the number of probes done and their total.

    Returns:
        One per name, without values if no label is used.
    """
    rows, targets = _select_labeled(scan)
    group = group[rows]
    chosen = _labels_to_probe(scan, targets, group)
    probes = []
    for done, name in enumerate(_NAMES, 1):
        scores = {}
        if chosen:
            features = _features(name, scan, rows)
            scores = {
                label: _out_of_fold(name, features, targets[:, column], group)
                for label, column in chosen.items()
            }
        truth = {label: targets[:, column] for label, column in chosen.items()}
        probes.append(_probe(name, truth, scores, group))
        if progress is not None:
            progress(done, len(_NAMES))
    return probes


def _select_labeled(scan: Scan) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Select labeled cases: their rows (n,) and labels (n, L)."""
    targets = scan.dataset.label_targets()
    if targets.ndim == 1:
        known = targets >= 0
        targets = targets[:, None] == np.arange(len(scan.dataset.spec.labels))
    else:
        known = ~np.isnan(targets).any(axis=1)
        targets = targets > 0
    rows = np.flatnonzero(known & scan.readable)
    if len(rows) > MAX_CASES:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_CASES, replace=False))
    return rows, targets[rows]


def _labels_to_probe(
    scan: Scan, targets: NDArray[np.bool_], group: NDArray[np.int64]
) -> dict[str, int]:
    names = scan.dataset.spec.labels
    enough = {
        name: column
        for column, name in enumerate(names)
        if min(len(np.unique(group[targets[:, column] == side])) for side in (True, False))
        >= MIN_GROUPS
    }
    if len(enough) == len(names) == 2 and not scan.dataset.spec.multi_label:
        enough.popitem()
    return enough


def _features(name: str, scan: Scan, rows: NDArray[np.int64]) -> NDArray[Any]:
    if name == "image-size":
        size = scan.facts.loc[rows, ["height", "width"]].to_numpy(float)
        return np.column_stack([size, size[:, 0] / size[:, 1], size[:, 0] * size[:, 1]])
    if name == "border":
        return scan.strips(rows)
    step = SIDE // _THUMBNAIL
    pixels = scan.descriptions(rows).thumbnails.reshape(-1, _THUMBNAIL, step, _THUMBNAIL, step)
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
    """Score each case by a model trained without its group, (n,)."""
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
        # A fold may lack the label: the scores of all folds are evaluated together.
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
        draws = _resample(truth, scores, member)
        mean = _auroc(float(point.mean()), draws.mean(axis=1))
        labels = {
            label: _auroc(float(point[column]), draws[:, column])
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


def shortcut_findings(scan: Scan, probes: Sequence[Probe]) -> list[RowFinding]:
    """The finding of the probes that predict labels from what is no anatomy, if any do.

    Args:
        scan: What was read of the dataset.
        probes: From `run_probes`.
    """
    details: list[str] = []
    for probe in probes:
        aurocs = probe.labels if probe.mean is None else {"mean": probe.mean, **probe.labels}
        details.extend(f"{probe.name}: AUROC of {key} {aurocs[key]}" for key in probe.warned)
    labeled = np.flatnonzero(scan.dataset.cases["label"].ne(""))
    return [RowFinding("shortcut", labeled, details=details)] if details else []


def _auroc(point: float, resamples: NDArray[np.float64]) -> Auroc:
    low, high = np.quantile(resamples, (0.025, 0.975))
    return Auroc(auroc=point, low=float(low), high=float(high))


def _resample(
    truth: dict[str, NDArray[np.bool_]],
    scores: dict[str, NDArray[np.float64]],
    member: NDArray[np.int64],
) -> NDArray[np.float64]:
    """AUROC of each label in resamples of whole groups, (resamples, labels).

    A resample without a label, or with nothing else, has no AUROC and is left out, which
    `scipy.stats.bootstrap` cannot do. With at least ten groups on either side it is rare.
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
