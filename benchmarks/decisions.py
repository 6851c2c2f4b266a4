"""Effect of the decision rules in the runs of an experiment, on the test images of each run.

    python benchmarks/decisions.py OUT results/busi

OUT is the folder of `dxseg compare --out`. For every method at the experiment's first budget,
pooled over the folds or seeds whose run has its model, or was looked at when it had one,
`results/busi/decisions.csv` says

- at_0.05 to at_0.3: Dice on lesion images if, in each fold, as many lesion-free images may get a
  mask as the rate says. Images are ranked by the odds of the highest pixel, times the odds of a
  lesion where the method has a classifier; the highest ranked get the mask of an image with a known
  lesion. So methods are compared at one footing, whatever their thresholds are.
- finding_0.8 to finding_0.98: the same, where at least that share of the lesion images gets a mask.
- plain, gated, ruled: Dice on lesion images at the pixel threshold alone, with the gate, and with
  the threshold to rule in as well, which is what `dxseg predict` answers.
- known: the same if the diagnosis of every image is given.
- For each of these the false-positive rate and area on lesion-free images, and the share of lesion
  images left without a mask.

Differences are those of the experiment's primary method minus the method, by paired bootstrap.
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

from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.cases import EvaluatedCase
from dxseg.evaluation.runs import is_evaluated, load_run
from dxseg.evaluation.stream import images, predicted_cases, split_rows
from dxseg.evaluation.summary import weighting
from dxseg.experiments.experiment import Experiment, parse_experiment, read_experiment_text
from dxseg.experiments.plan import plan, select_runs
from dxseg.inference.model_folder import ModelInfo, load_model_folder
from dxseg.inference.postprocess import decide
from dxseg.inference.predictor import Predictor
from dxseg.io.atomic import write_text_atomic
from dxseg.metrics.image_level import lesion_probability
from dxseg.metrics.overlap import dice
from dxseg.metrics.statistics import Weighting, bootstrap_mean, mean_by, paired_bootstrap

RATES = (0.05, 0.1, 0.2, 0.3)
SENSITIVITIES = (0.8, 0.9, 0.95, 0.98)
RULES = ("plain", "gated", "ruled", "known")
PER_IMAGE = "decisions_per_image.csv"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder of `dxseg compare --out`")
    parser.add_argument("kept", type=Path, help="results/NAME, with experiment.yaml")
    args = parser.parse_args(arguments)
    path = args.kept / "experiment.yaml"
    experiment = parse_experiment(read_experiment_text(path), str(path))
    data = Dataset.load(args.kept / experiment.dataset)
    jobs = [job for job in select_runs(plan(experiment)) if job.masks == experiment.masks[0]]
    jobs = [job for job in jobs if can_be_told(args.out / "runs" / job.name)]
    if not jobs:
        raise SystemExit(
            f"{args.out}: no finished run of {path} has its model; run `dxseg compare` first"
        )
    weigh = weighting(load_run(args.out / "runs" / jobs[0].name, "test").averaged_by)
    tables = []
    for job in track(jobs, "Runs"):
        table = per_image(args.out / "runs" / job.name, data)
        tables.append(table.assign(method=job.method, part=job.fold.name))
    summary = summarise(experiment, pd.concat(tables), weigh)
    write_text_atomic(args.kept / "decisions.csv", summary.to_csv(index=False))
    print(summary.to_string(index=False, float_format="{:.3f}".format))


def can_be_told(run: Path) -> bool:
    """Whether a run is finished, and its model or what was found with it is there."""
    return is_evaluated(run, "test") and ((run / PER_IMAGE).is_file() or (run / "model").is_dir())


def per_image(run: Path, data: Dataset) -> pd.DataFrame:
    """One row a test image; kept in the run's folder."""
    path = run / PER_IMAGE
    if not path.is_file():
        table = pd.DataFrame(_rows(run, data))
        write_text_atomic(path, table.to_csv(index=False))
    return pd.read_csv(path, dtype={"case_id": str, "group": str})


def _rows(run: Path, data: Dataset) -> Iterator[dict[str, Any]]:
    network, info = load_model_folder(run / "model")
    # The network's own probabilities: the gate would bound them.
    predictor = Predictor(network, info.model_copy(update={"gate": None, "rule_in": None}))
    rows, _ = split_rows(data, run / "splits.csv", "test")
    told = dict(zip(rows["case_id"], rows["label"], strict=True))
    unknown, known = (
        predicted_cases(data, rows, predictor.stream(images(data, rows), known=labels))
        for labels in (None, told if info.model.has_label_head else None)
    )
    for case, told_case in zip(unknown, known, strict=True):
        if case.truth is None and not case.lesion_free:
            continue
        truth = _truth(case)
        chance = lesion_probability(
            case.prediction.label_probabilities, info.lesion_free, info.multi_label
        )
        odds = _log_odds(float(case.prediction.probabilities.max()))
        row: dict[str, Any] = {
            "case_id": case.case_id,
            "group": case.group,
            "lesion": bool(truth.any()),
            "score": odds if np.isnan(chance) else odds + _log_odds(chance),
        }
        for name, rule in _rules(info, chance, case).items():
            shown = told_case if name == "known" else case
            _, mask = decide(shown.prediction.probabilities, threshold=info.threshold, **rule)
            row[f"dice_{name}"] = dice(truth, mask > 0)
            row[f"area_{name}"] = float((mask > 0).mean())
        yield row


def _rules(info: ModelInfo, chance: float, case: EvaluatedCase) -> dict[str, dict[str, Any]]:
    """What `decide` is told."""
    gated = {"gate": info.gate, "lesion_probability": chance}
    return {
        "plain": {},
        "gated": gated,
        "ruled": gated | {"rule_in": info.rule_in},
        "found": {"known_lesion": True},
        "known": {"known_lesion": not case.lesion_free if case.label else None},
    }


def _truth(case: EvaluatedCase) -> NDArray[np.bool_]:
    if case.truth is None:
        return np.zeros(np.asarray(case.prediction.mask).shape, bool)
    return case.truth > 0


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return float(np.log(p / (1 - p)))


def summarise(experiment: Experiment, table: pd.DataFrame, weigh: Weighting) -> pd.DataFrame:
    """One row per method and rule; methods are compared on the parts of the primary method."""
    methods = {
        str(method): on_one_footing(rows) for method, rows in table.groupby("method", sort=False)
    }
    rules = [*(f"at_{rate}" for rate in RATES), *(f"finding_{s}" for s in SENSITIVITIES), *RULES]
    primary = methods.get(experiment.primary or experiment.reference)
    rows = []
    for method, own in methods.items():
        for rule in rules:
            row = {"method": method, "parts": own["part"].nunique(), "rule": rule}
            row |= _figures(own, rule, weigh)
            if primary is not None and primary is not own:
                row |= _difference(primary, own, rule, weigh)
            rows.append(row)
    return pd.DataFrame(rows)


def on_one_footing(table: pd.DataFrame) -> pd.DataFrame:
    """Add what each image gets where methods have the same false-positive rate, or sensitivity."""
    table = table.reset_index(drop=True)
    for rate in RATES:
        _mark(table, f"at_{rate}", ~table["lesion"], rate, math.floor)
    for sensitivity in SENSITIVITIES:
        _mark(table, f"finding_{sensitivity}", table["lesion"], sensitivity, math.ceil)
    return table


def _mark(
    table: pd.DataFrame,
    rule: str,
    of: pd.Series[bool],
    share: float,
    whole: Callable[[float], int],
) -> None:
    """Give masks to the highest ranked images of each part, down to a share of those `of` one kind.

    The share is made `whole` images; of images that rank alike at the cut none gets a mask.
    """
    marked = pd.Series(False, index=table.index)
    for _, part in table.groupby("part"):
        ranked = part.loc[of[part.index], "score"].sort_values(ascending=False)
        count = whole(share * len(ranked))
        cut = ranked.iloc[count] if count < len(ranked) else -np.inf
        marked[part.index] = part["score"] > cut
    empty = (~table["lesion"]).astype(float)
    table[f"dice_{rule}"] = table["dice_found"].where(marked, empty)
    table[f"area_{rule}"] = table["area_found"].where(marked, 0.0)


def _figures(table: pd.DataFrame, rule: str, weigh: Weighting) -> dict[str, Any]:
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
    primary: pd.DataFrame, other: pd.DataFrame, rule: str, weigh: Weighting
) -> dict[str, Any]:
    keys = ["part", "case_id"]
    both = primary.merge(other, on=keys, suffixes=("", "_other"), validate="one_to_one")
    lesion = both["lesion"]
    found = paired_bootstrap(
        both[f"dice_{rule}"].where(lesion),
        both[f"dice_{rule}_other"].where(lesion),
        both["group"],
        weighting=weigh,
    )
    return {
        "difference": found.mean,
        "difference_low": found.low,
        "difference_high": found.high,
        "p_value": found.p_value,
    }


if __name__ == "__main__":
    main()
