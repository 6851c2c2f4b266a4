"""The methods of an experiment against themselves in another one, on the same test volumes.

    python benchmarks/against.py OUT OTHER results/NAME

OUT and OTHER are folders of `dxseg experiment --out`, the latter restored by keep_experiment.py if
need be; results/NAME has the experiment file of the first. Two experiments differ in what their
methods cannot: the dataset, such as slices with and without their neighbors. `against.csv` gets one
row per method, budget and metric, of the runs that both have evaluated: means over volumes, and the
difference, paired by volume, with a bootstrap of patients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from command import parser_of
from dxseg.evaluation.runs import is_evaluated, load_run
from dxseg.evaluation.summary import weighting
from dxseg.experiments.experiment import parse_experiment, read_experiment_text
from dxseg.experiments.plan import Job, plan, select_runs
from dxseg.io.atomic import write_text_atomic
from dxseg.metrics.statistics import mean_by, paired_bootstrap

METRICS = ("volume_dice", "volume_hd95", "volume_lesion_f1")


def main(words: Sequence[str] | None = None) -> pd.DataFrame:
    """Write and print the table, and return it."""
    parser = parser_of(__doc__)
    parser.add_argument("out", type=Path, help="the folder of `dxseg experiment --out`")
    parser.add_argument("other", type=Path, help="that of the other experiment")
    parser.add_argument("kept", type=Path, help="results/NAME, with experiment.yaml")
    args = parser.parse_args(words)
    path = args.kept / "experiment.yaml"
    experiment = parse_experiment(read_experiment_text(path), str(path))
    both: defaultdict[tuple[str, Any], list[Job]] = defaultdict(list)
    for job in select_runs(plan(experiment)):
        if all(is_evaluated(out / "runs" / job.name, "test") for out in (args.out, args.other)):
            both[str(job.method), job.masks].append(job)
    if not both:
        raise SystemExit(f"{args.out} and {args.other} have no evaluated run in common")
    rows = [
        {"method": method, "masks": masks, **row}
        for (method, masks), jobs in both.items()
        for row in differences(jobs, args.out, args.other)
    ]
    table = pd.DataFrame(rows)
    write_text_atomic(args.kept / "against.csv", table.to_csv(index=False))
    print(table.to_string(index=False, float_format="{:.3f}".format))
    return table


def differences(jobs: Sequence[Job], out: Path, other: Path) -> Iterator[dict[str, Any]]:
    """One row per metric, of all runs of a method and budget.

    Raises:
        SystemExit: A run has other test volumes than its namesake.
    """
    pairs = [[load_run(folder / "runs" / job.name) for folder in (out, other)] for job in jobs]
    weigh = weighting(pairs[0][0].averaged_by)
    for metric in METRICS:
        found = [
            [run.values(metric).sort_values("case_id", ignore_index=True) for run in pair]
            for pair in pairs
        ]
        for job, (one, two) in zip(jobs, found, strict=True):
            if not one["case_id"].equals(two["case_id"]):
                raise SystemExit(f"{job.name}: the test volumes differ")
        sides = zip(*found, strict=True)
        values, reference = (pd.concat(side, ignore_index=True) for side in sides)
        groups = values["group"]
        paired = paired_bootstrap(values["value"], reference["value"], groups, weighting=weigh)
        yield {
            "metric": metric,
            "runs": len(jobs),
            "volumes": paired.images,
            "value": mean_by(values["value"], groups, weighting=weigh),
            "other": mean_by(reference["value"], groups, weighting=weigh),
            "difference": paired.mean,
            "low": paired.low,
            "high": paired.high,
            "p_value": paired.p_value,
        }


if __name__ == "__main__":
    main()
