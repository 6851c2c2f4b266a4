"""Compare evaluated runs: means over seeds and paired differences from a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.errors import UsageError
from dxseg.evaluation.runs import EvaluatedRun, check_comparable, check_seeds, load_run
from dxseg.evaluation.summary import (
    CONFIDENCE,
    ENDPOINTS,
    MEANS,
    point_estimates,
    weighting,
    without_nan,
)
from dxseg.evaluation.volume_summary import (
    GLOBAL_DICE,
    VOLUME_MEANS,
    VOLUME_TESTED,
    estimate_volumes,
)
from dxseg.io.atomic import write_json_atomic, write_text_atomic
from dxseg.metrics.statistics import RESAMPLES, holm, keep_shared, paired_bootstrap

FIGURES = (
    *ENDPOINTS,
    "dice_all",
    "iou_lesion",
    "hd95_lesion",
    "nsd_lesion",
    "lesion_sensitivity",
    "lesion_f1",
    "false_positive_area",
    "sensitivity",
    "false_positive_rate",
    "false_positive_rate_fp10",
    "auroc_mask",
    "auroc_label",
)
TESTED = tuple(name for name in FIGURES if name in MEANS)
VOLUME_FIGURES = (*VOLUME_MEANS, GLOBAL_DICE)
DIFFERENCE_COLUMNS = (
    "method",
    "metric",
    "difference",
    "low",
    "high",
    "p_value",
    "p_holm",
    "images",
    "groups",
)
ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        methods: One row per method, in the order given: method, seeds, then for each of `FIGURES`
            the mean over seeds and `<figure>_sd`, the standard deviation (NaN for one seed); where
            images are slices, also of `VOLUME_FIGURES`.
        differences: One row for each other method and figure of `TESTED` and, of slices,
            `VOLUME_TESTED`: method, metric, difference (method minus reference), low, high,
            p_value, p_holm, images (volumes, where the metric is theirs), groups.
        summary: Both as one JSON object, with `reference`, `seeds`, `averaged_by`, `units`
            and `interval`; None where a figure is undefined.
        markdown: Both as Markdown tables.
    """

    methods: pd.DataFrame
    differences: pd.DataFrame
    summary: dict[str, Any]
    markdown: str

    def __str__(self) -> str:
        return self.markdown

    def write(self, folder: str | Path) -> None:
        """Write comparison.json, comparison.md, comparison_methods.csv, comparison_differences.csv.

        Args:
            folder: The folder to write to; each file is written atomically.
        """
        folder = Path(folder)
        for name, table in (("methods", self.methods), ("differences", self.differences)):
            write_text_atomic(folder / f"comparison_{name}.csv", table.to_csv(index=False))
        write_text_atomic(folder / "comparison.md", self.markdown)
        write_json_atomic(folder / "comparison.json", self.summary)


def compare_runs(
    runs: Sequence[str | Path], *, reference: str | None = None, resamples: int = RESAMPLES
) -> Comparison:
    """Compare methods that were evaluated on the same cases.

    For a difference, each case's value is averaged over the seeds in which both methods have one.
    Whole patients or groups of cases are resampled; and the seeds too, if all test the same cases.
    p-values are adjusted by Holm over the methods, for each figure.

    Args:
        runs: Run folders with run.json (keys `method` and `seed`) and an evaluation on test.
        reference: The method that others are compared with; default: that of the first run.
        resamples: Number of bootstrap samples.

    Returns:
        The comparison.

    Raises:
        UsageError: There is no run, the reference is unknown, or a method has a seed twice or
            lacks a seed that another has.
        DxsegError: A run is not evaluated, or runs differ in cases, truth, groups, averaging or
            units, so that their figures are not comparable.
    """
    if not runs:
        raise UsageError("no run to compare; give at least one evaluated run folder")
    loaded = [load_run(Path(run)) for run in runs]
    names = list(dict.fromkeys(run.method for run in loaded))
    reference = names[0] if reference is None else reference
    if reference not in names:
        raise UsageError(
            f"reference {reference!r} is not a method of these runs; expected one of {names}"
        )
    seeds = check_seeds(loaded)
    check_comparable(loaded)

    average_by = loaded[0].averaged_by
    of_volumes = all(len(run.volumes) for run in loaded)
    per_run = pd.DataFrame([_estimates(run, of_volumes=of_volumes) for run in loaded])
    methods = _method_table(per_run, names)
    tested = (*TESTED, *(VOLUME_TESTED if of_volumes else ()))
    differences = _differences(loaded, names, reference, tested, resamples)
    summary = {
        "reference": reference,
        "seeds": seeds,
        "averaged_by": average_by,
        "units": loaded[0].units,
        "interval": {
            "method": f"percentile paired bootstrap by {' and '.join(_resampled(loaded))}",
            "confidence": CONFIDENCE,
            "resamples": resamples,
            "adjustment": "Holm over methods, each metric by itself",
        },
        "methods": methods.to_dict("records"),
        "per_run": per_run.to_dict("records"),
        "differences": differences.to_dict("records"),
    }
    markdown = _markdown(methods, differences, reference, seeds, loaded[0])
    return Comparison(methods, differences, without_nan(summary), markdown)


def _estimates(run: EvaluatedRun, *, of_volumes: bool) -> dict[str, Any]:
    figures = {"method": run.method, "seed": run.seed}
    figures |= point_estimates(run.table, run.averaged_by)
    return figures | estimate_volumes(run.volumes, run.averaged_by) if of_volumes else figures


def _method_table(per_run: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    by_method = per_run.groupby("method", sort=False)
    methods = pd.DataFrame({"method": names, "seeds": by_method.size().reindex(names).to_numpy()})
    for figure in [name for name in (*FIGURES, *VOLUME_FIGURES) if name in per_run]:
        methods[figure] = by_method[figure].mean().reindex(names).to_numpy()
        methods[f"{figure}_sd"] = by_method[figure].std().reindex(names).to_numpy()
    return methods


def _differences(
    runs: list[EvaluatedRun],
    names: list[str],
    reference: str,
    tested: Sequence[str],
    resamples: int,
) -> pd.DataFrame:
    others = [name for name in names if name != reference]
    resampled = _resampled(runs)
    rows: list[dict[str, Any]] = []
    for metric in tested:
        values, groups = _per_case(runs, metric)
        found = []
        for method in others:
            own, other = _paired(values, method, reference, by_seed="seed" in resampled)
            difference = paired_bootstrap(
                own,
                other,
                groups,
                weighting=weighting(runs[0].averaged_by),
                confidence=CONFIDENCE,
                resamples=resamples,
            )
            found.append(difference)
        adjusted = holm([difference.p_value for difference in found])
        rows += [
            {
                "method": method,
                "metric": metric,
                "difference": difference.mean,
                "low": difference.low,
                "high": difference.high,
                "p_value": difference.p_value,
                "p_holm": float(p_holm),
                "images": difference.images,
                "groups": difference.groups,
            }
            for method, difference, p_holm in zip(others, found, adjusted, strict=True)
        ]
    return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS))


def _resampled(runs: list[EvaluatedRun]) -> list[str]:
    """What is resampled: seeds only where there are several, all with the same cases."""
    cases = {tuple(run.table["case_id"]) for run in runs}
    several = len({run.seed for run in runs}) > 1
    return ["group", "seed"] if several and len(cases) == 1 else ["group"]


def _paired(
    values: pd.DataFrame, method: str, reference: str, *, by_seed: bool
) -> list[NDArray[np.float64]]:
    """Values of both methods' cases by seed, or means over the seeds in which both have one."""
    shared = keep_shared(values[method], values[reference])
    return [one if by_seed else pd.DataFrame(one).mean(axis=1).to_numpy() for one in shared]


def _per_case(runs: list[EvaluatedRun], metric: str) -> tuple[pd.DataFrame, pd.Series[str]]:
    """Value of each case for each method and seed; and the group of each case."""
    stacked = pd.concat(
        [run.values(metric).assign(method=run.method, seed=run.seed) for run in runs]
    )
    values = stacked.pivot(index="case_id", columns=["method", "seed"], values="value")
    groups = stacked.drop_duplicates("case_id").set_index("case_id")["group"]
    return values, groups.loc[values.index]


def _markdown(
    methods: pd.DataFrame,
    differences: pd.DataFrame,
    reference: str,
    seeds: list[int],
    run: EvaluatedRun,
) -> str:
    unit = run.units.get("distance", "")
    lines = _figure_table(
        methods, {name: f"{name} ({unit})" if name.startswith("hd95") else name for name in FIGURES}
    )
    if GLOBAL_DICE in methods:
        titles = {name: name for name in VOLUME_FIGURES} | {"volume_hd95": "volume_hd95 (mm)"}
        lines += ["", *_figure_table(methods, titles)]
    lines += ["", f"Mean ± standard deviation over seeds; averaged by {run.averaged_by}."]
    if len(seeds) < ENOUGH_SEEDS:
        lines.append(f"Only {len(seeds)} seed(s): at least {ENOUGH_SEEDS} are needed to conclude.")
    if len(differences):
        lines += [
            "",
            f"| method - {reference} | metric | difference | 95% interval | p | p (Holm) |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['method']} | {row['metric']} | {_signed(row['difference'])} | "
            f"{signed_interval(row) or '-'} | {_p(row['p_value'])} | {_p(row['p_holm'])} |"
            for row in differences.to_dict("records")
        ]
    return "\n".join(lines) + "\n"


def signed_interval(row: Mapping[Any, Any]) -> str:
    """Format the interval of a difference; "" where it is undefined, as with one group.

    Args:
        row: With low and high.
    """
    return "" if np.isnan(row["low"]) else f"{row['low']:+.3f} to {row['high']:+.3f}"


def _signed(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:+.3f}"


def _p(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"


def _figure_table(methods: pd.DataFrame, titles: dict[str, str]) -> list[str]:
    """Lines of a Markdown table: a row per method, a column per figure with a title."""
    lines = ["| method | seeds | " + " | ".join(titles.values()) + " |"]
    lines.append("|---" * (len(titles) + 2) + "|")
    for row in methods.to_dict("records"):
        cells = [_with_spread(row[name], row[f"{name}_sd"]) for name in titles]
        lines.append(f"| {row['method']} | {row['seeds']} | " + " | ".join(cells) + " |")
    return lines


def _with_spread(mean: float, spread: float) -> str:
    if np.isnan(mean):
        return "-"
    return f"{mean:.3f}" if np.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"
