"""Volume Dice of finished runs with slices alone, and with what the third dimension adds.

    python benchmarks/axis.py RUN...

For each run of slices: the smoothing along the axis and the filter of components are chosen on its
validation volumes as `dxseg train` does, then the test volumes are measured with neither, with the
smoothing, and with both. Differences from slices alone are paired by volume, with a bootstrap of
patients; those of all runs together average the runs that tested a volume. `--csv FILE` keeps the
values of each volume.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.config.presets import read_config
from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.cases import EvaluationProtocol
from dxseg.evaluation.stream import predict_rows, predicted_cases, split_rows
from dxseg.evaluation.volume_summary import VOLUME_MEANS, volume_values
from dxseg.evaluation.volumes import VolumeScorer
from dxseg.inference.model_folder import load_model_folder
from dxseg.inference.predictor import Predictor
from dxseg.io.atomic import write_text_atomic
from dxseg.metrics.statistics import mean_by, paired_bootstrap
from dxseg.training.axis_smoothing import choose_smoothing
from dxseg.training.component_filter import choose_components
from dxseg.training.datamodule.training_data import prepare_training_data
from dxseg.training.run_record import read_run

ALONE, *OTHERS = VARIANTS = ("slices alone", "smoothed", "smoothed, components")
SHOWN = ("volume_dice", "volume_hd95", "volume_lesion_f1", "volume_absolute_error_ml")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs of slices")
    parser.add_argument("--csv", type=Path, help="file for the values of each volume")
    args = parser.parse_args(arguments)
    tables, chosen = [], {}
    for run in args.runs:
        table, chosen[run.name] = measure(run)
        tables.append(table.assign(run=run.name))
        show(run.name, tables[-1])
        print(json.dumps(chosen[run.name]))
    every = pd.concat(tables, ignore_index=True)
    if len(args.runs) > 1:
        show("all runs", every)
    if args.csv is not None:
        write_text_atomic(args.csv, every.to_csv(index=False))
    result = {"benchmark": "axis", "chosen": chosen, "differences": differences(every)}
    print(json.dumps(result))
    return result


def measure(run: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Measure the test volumes of a run in each variant; also what validation has chosen."""
    data, config = Dataset.load(read_run(run)["dataset"]), read_config(run / "config.yaml")
    splits = read_splits(run / "splits.csv", data)
    network, info = load_model_folder(run / "model")
    statistics = (info.preprocessing.mean, info.preprocessing.std)
    prepared = prepare_training_data(data, splits, config, statistics)
    alone = info.model_copy(update={"smoothing_mm": 0.0, "components": None})
    sigma, smoothing = choose_smoothing(network, alone, prepared.label_validation)
    smoothed = alone.model_copy(update={"smoothing_mm": sigma})
    components, filtering = choose_components(
        network, smoothed, prepared.label_validation, prepared.mask_train
    )
    both = smoothed.model_copy(update={"components": components})
    rows, _ = split_rows(data, splits, "test", run / "splits.csv")
    tables = []
    for variant, own in zip(VARIANTS, (alone, smoothed, both), strict=True):
        predictor = Predictor(network, own)
        lesions = data.spec.lesion_classes
        scorer = VolumeScorer(
            EvaluationProtocol(info.mask_classes, info.lesion_free, lesion_classes=lesions)
        )
        for case in predicted_cases(data, rows, predict_rows(predictor, data, rows)):
            scorer.add(case)
        tables.append(scorer.table().assign(variant=variant))
    record = {"smoothing": smoothing, "components": filtering}
    if components is not None:
        filtering["chosen"] = components.model_dump()
    return pd.concat(tables, ignore_index=True), record


def show(title: str, table: pd.DataFrame) -> None:
    """Print the means of each variant, and how far they are from slices alone."""
    print(f"\n{title}")
    for variant in VARIANTS:
        own = table[table["variant"] == variant]
        means = {
            metric: mean_by(volume_values(own, metric), own["group"], weighting="group")
            for metric in SHOWN
        }
        figures = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(f"  {variant:<22} {figures}")
    for row in differences(table):
        print(
            f"  {row['variant']} - {ALONE}: {row['metric']} {row['difference']:+.4f} "
            f"({row['low']:+.4f} to {row['high']:+.4f}), p {row['p_value']:.3f}, "
            f"{row['volumes']} volumes of {row['patients']} patients"
        )


def differences(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Paired differences of each variant from slices alone, in Dice of volumes and HD95."""
    rows = []
    for metric in SHOWN[:2]:
        assert metric in VOLUME_MEANS
        values = table.assign(value=volume_values(table, metric)).pivot_table(
            index="volume_id", columns="variant", values="value", aggfunc="mean"
        )
        groups = table.drop_duplicates("volume_id").set_index("volume_id")["group"]
        for variant in OTHERS:
            found = paired_bootstrap(
                values[variant], values[ALONE], groups.loc[values.index], weighting="group"
            )
            rows.append(
                {
                    "variant": variant,
                    "metric": metric,
                    "difference": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "p_value": found.p_value,
                    "volumes": found.images,
                    "patients": found.groups,
                }
            )
    return rows


if __name__ == "__main__":
    main()
