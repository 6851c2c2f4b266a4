"""Effect of the decision rules in the runs of an experiment, on the test images of each run.

    python benchmarks/decisions.py OUT results/busi

OUT is the folder of `dxseg experiment --out`. `results/busi/decisions.csv` gets one row per method
and rule, at the experiment's first budget. Folds or seeds are pooled whose run has its model, or
was evaluated by this script when it had one. Rules:

- fpr_0.05 to fpr_0.3: Dice on lesion images if, in each fold, that fraction of the lesion-free
  images may get a mask. Images are ranked by the odds of the highest pixel, times the odds of a
  lesion where the method has a classifier; the highest ranked get the mask of an image that is
  known to have a lesion. So methods are compared independently of their thresholds.
- sensitivity_0.8 to sensitivity_0.98: the same, where at least that fraction of the lesion images
  gets a mask.
- plain: the pixel threshold alone.
- rule_out: with the rule-out threshold too.
- rule_out_rule_in: with the rule-in threshold too, which is what `dxseg predict` does.
- label_prompt: the same with the true label of every image.
- shared_classifier: every method with the classifier and the thresholds of the primary method's run
  of the same fold, so also those that kept no classifier. A ruled-in image gets the mask of an
  image that is known to have a lesion; where no pixel is above 0.17 that mask is a little larger
  than the rule-in threshold would give.

For each rule also: the false-positive rate and area on lesion-free images, and the fraction of
lesion images without a mask. Differences are the experiment's primary method minus the method, and
(`gain`) the method minus the experiment's reference, by paired bootstrap.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.progress import track

from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.cases import EvaluatedCase
from dxseg.evaluation.runs import is_evaluated, load_run
from dxseg.evaluation.stream import predict_rows, predicted_cases, split_rows
from dxseg.evaluation.summary import weighting
from dxseg.experiments.experiment import Experiment, parse_experiment, read_experiment_text
from dxseg.experiments.plan import plan, select_runs
from dxseg.inference.model_folder import load_model_folder
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.postprocess import apply_thresholds, is_ruled_in, is_ruled_out
from dxseg.inference.predictor import Predictor
from dxseg.io.atomic import write_text_atomic
from dxseg.io.json_io import read_json
from dxseg.metrics.image_level import lesion_probability
from dxseg.metrics.overlap import dice
from dxseg.metrics.statistics import Weighting, bootstrap_mean, mean_by, paired_bootstrap

RATES = (0.05, 0.1, 0.2, 0.3)
SENSITIVITIES = (0.8, 0.9, 0.95, 0.98)
RULES = ("plain", "rule_out", "rule_out_rule_in", "label_prompt")
SHARED = "shared_classifier"
PER_IMAGE = "decisions_per_image.csv"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder of `dxseg experiment --out`")
    parser.add_argument("kept", type=Path, help="results/NAME, with experiment.yaml")
    args = parser.parse_args(arguments)
    path = args.kept / "experiment.yaml"
    experiment = parse_experiment(read_experiment_text(path), str(path))
    data = Dataset.load(args.kept / experiment.dataset)
    jobs = [job for job in select_runs(plan(experiment)) if job.masks == experiment.masks[0]]
    jobs = [job for job in jobs if has_model_or_table(args.out / "runs" / job.name)]
    if not jobs:
        raise SystemExit(
            f"{args.out}: no finished run of {path} has its model; run `dxseg experiment` first"
        )
    weigh = weighting(load_run(args.out / "runs" / jobs[0].name, "test").averaged_by)
    tables = []
    for job in track(jobs, "Runs"):
        table = per_image(args.out / "runs" / job.name, data)
        tables.append(table.assign(method=job.method, fold=job.fold.name))
    table = pd.concat(tables)
    shared = [job for job in jobs if job.method == primary_of(experiment)]
    if shared:
        table = with_classifier(
            table, {job.fold.name: args.out / "runs" / job.name for job in shared}
        )
    summary = summarize(experiment, table, weigh)
    write_text_atomic(args.kept / "decisions.csv", summary.to_csv(index=False))
    print(summary.to_string(index=False, float_format="{:.3f}".format))


def has_model_or_table(run: Path) -> bool:
    """Whether a run is finished and has its model, or the table that was made with it."""
    return is_evaluated(run, "test") and ((run / PER_IMAGE).is_file() or (run / "model").is_dir())


def per_image(run: Path, data: Dataset) -> pd.DataFrame:
    """Make the table with one row per test image, which is kept in the run's folder."""
    path = run / PER_IMAGE
    if not path.is_file():
        table = pd.DataFrame(_rows(run, data))
        write_text_atomic(path, table.to_csv(index=False))
    return pd.read_csv(path, dtype={"case_id": str, "group": str})


def _rows(run: Path, data: Dataset) -> Iterator[dict[str, Any]]:
    network, info = load_model_folder(run / "model")
    # The network's own probabilities: the rule-out threshold would cap them.
    predictor = Predictor(
        network, info.model_copy(update={"rule_out_threshold": None, "rule_in_threshold": None})
    )
    file = run / "splits.csv"
    rows, _ = split_rows(data, read_splits(file, data), "test", file)
    labels = dict(zip(rows["case_id"], rows["label"], strict=True))
    without, with_label = (
        predicted_cases(data, rows, predict_rows(predictor, data, rows, labels=prompts))
        for prompts in (None, labels if info.model.predicts_labels else None)
    )
    for case, prompted in zip(without, with_label, strict=True):
        if case.truth is None and not case.lesion_free:
            continue
        truth = _truth(case)
        probability = lesion_probability(
            case.prediction.label_probabilities, info.lesion_free, info.multi_label
        )
        odds = _log_odds(float(case.prediction.probabilities.max()))
        row: dict[str, Any] = {
            "case_id": case.case_id,
            "group": case.group,
            "lesion": bool(truth.any()),
            "score": odds if np.isnan(probability) else odds + _log_odds(probability),
        }
        for name, rule in _rules(info, probability, case).items():
            used = prompted if name == "label_prompt" else case
            _, mask = apply_thresholds(
                used.prediction.probabilities, threshold=info.threshold, **rule
            )
            row[f"dice_{name}"] = dice(truth, mask > 0)
            row[f"area_{name}"] = float((mask > 0).mean())
        yield row


def _rules(info: ModelInfo, probability: float, case: EvaluatedCase) -> dict[str, dict[str, Any]]:
    """Arguments of `apply_thresholds` for each rule."""
    rule_out = {"rule_out_threshold": info.rule_out_threshold, "lesion_probability": probability}
    return {
        "plain": {},
        "rule_out": rule_out,
        "rule_out_rule_in": rule_out | {"rule_in_threshold": info.rule_in_threshold},
        "known_lesion": {"known_lesion": True},
        "label_prompt": {"known_lesion": not case.lesion_free if case.label else None},
    }


def _truth(case: EvaluatedCase) -> NDArray[np.bool_]:
    if case.truth is None:
        return np.zeros(np.asarray(case.prediction.mask).shape, bool)
    return case.truth > 0


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return float(np.log(p / (1 - p)))


def primary_of(experiment: Experiment) -> str:
    """The method that the others are compared with."""
    return experiment.primary or experiment.reference


def with_classifier(table: pd.DataFrame, runs: dict[str, Path]) -> pd.DataFrame:
    """Add the rule `shared_classifier` to the folds of which there is a run."""
    folds = []
    for name, fold in table[table["fold"].isin(runs)].groupby("fold"):
        record = read_json(runs[str(name)] / "run.json", "train it again")
        path = runs[str(name)] / "per_image.csv"
        images = pd.read_csv(path, dtype={"case_id": str}).set_index("case_id")
        probability = images["lesion_probability"].reindex(fold["case_id"]).to_numpy()
        ruled = [
            [is_ruled_out(record["rule_out_threshold"], one) for one in probability],
            [is_ruled_in(record["rule_in_threshold"], one) for one in probability],
        ]
        empty = {"dice": (~fold["lesion"]).astype(float), "area": 0.0}
        for figure, none in empty.items():
            masks = [none, fold[f"{figure}_known_lesion"]]
            fold[f"{figure}_{SHARED}"] = np.select(ruled, masks, fold[f"{figure}_plain"])
        folds.append(fold)
    return pd.concat(folds)


def summarize(experiment: Experiment, table: pd.DataFrame, weigh: Weighting) -> pd.DataFrame:
    """One row per method and rule; methods are compared on the folds of the primary method."""
    methods = {
        str(method): add_matched_rules(rows) for method, rows in table.groupby("method", sort=False)
    }
    rules = [
        *(f"fpr_{rate}" for rate in RATES),
        *(f"sensitivity_{s}" for s in SENSITIVITIES),
        *RULES,
        *([SHARED] if f"dice_{SHARED}" in table else []),
    ]
    primary, reference = (methods.get(m) for m in (primary_of(experiment), experiment.reference))
    rows = []
    for method, own in methods.items():
        for rule in rules:
            row = {"method": method, "folds": own["fold"].nunique(), "rule": rule}
            row |= _metrics(own, rule, weigh)
            if primary is not None and primary is not own:
                row |= _difference(primary, own, rule, weigh, "difference")
            if reference is not None and reference is not own:
                row |= _difference(own, reference, rule, weigh, "gain")
            rows.append(row)
    return pd.DataFrame(rows)


def add_matched_rules(table: pd.DataFrame) -> pd.DataFrame:
    """Add the rules by which methods have the same false-positive rate or sensitivity."""
    table = table.reset_index(drop=True)
    for rate in RATES:
        _mark(table, f"fpr_{rate}", ~table["lesion"], rate, math.floor)
    for sensitivity in SENSITIVITIES:
        _mark(table, f"sensitivity_{sensitivity}", table["lesion"], sensitivity, math.ceil)
    return table


def _mark(
    table: pd.DataFrame,
    rule: str,
    counted: pd.Series[bool],
    fraction: float,
    round_: Callable[[float], int],
) -> None:
    """Give masks to the highest ranked images of each fold.

    So many that the masks reach a fraction of the `counted` images, which is rounded by `round_`;
    images that tie at the cut get none.
    """
    marked = pd.Series(False, index=table.index)
    for _, fold in table.groupby("fold"):
        ranked = fold.loc[counted[fold.index], "score"].sort_values(ascending=False)
        count = round_(fraction * len(ranked))
        cut = ranked.iloc[count] if count < len(ranked) else -np.inf
        marked[fold.index] = fold["score"] > cut
    empty = (~table["lesion"]).astype(float)
    table[f"dice_{rule}"] = table["dice_known_lesion"].where(marked, empty)
    table[f"area_{rule}"] = table["area_known_lesion"].where(marked, 0.0)


def _metrics(table: pd.DataFrame, rule: str, weigh: Weighting) -> dict[str, Any]:
    lesion, groups = table["lesion"], table["group"]
    marked = table[f"area_{rule}"].gt(0).astype(float)
    dice_lesion = bootstrap_mean(table[f"dice_{rule}"].where(lesion), groups, weighting=weigh)
    means = {
        "dice_all": table[f"dice_{rule}"],
        "false_positive_rate": marked.where(~lesion),
        "false_positive_area": table[f"area_{rule}"].where(~lesion),
        "lesions_without_mask": (1 - marked).where(lesion),
    }
    return {
        "dice_lesion": dice_lesion.mean,
        "low": dice_lesion.low,
        "high": dice_lesion.high,
        **{name: mean_by(values, groups, weighting=weigh) for name, values in means.items()},
    }


def _difference(
    one: pd.DataFrame, other: pd.DataFrame, rule: str, weigh: Weighting, name: str
) -> dict[str, Any]:
    keys = ["fold", "case_id"]
    both = one.merge(other, on=keys, suffixes=("", "_other"), validate="one_to_one")
    lesion = both["lesion"]
    difference = paired_bootstrap(
        both[f"dice_{rule}"].where(lesion),
        both[f"dice_{rule}_other"].where(lesion),
        both["group"],
        weighting=weigh,
    )
    return {
        name: difference.mean,
        f"{name}_low": difference.low,
        f"{name}_high": difference.high,
        f"{name}_p_value": difference.p_value,
    }


if __name__ == "__main__":
    main()
