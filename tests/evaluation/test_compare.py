from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dxseg.errors import DxsegError, UsageError
from dxseg.evaluation.cases import COLUMNS
from dxseg.evaluation.compare import TESTED, compare_runs
from dxseg.evaluation.volume_summary import VOLUME_TESTED
from dxseg.evaluation.volumes import COLUMNS as VOLUME_COLUMNS
from dxseg.metrics.statistics import holm

CASES = 60


def make_run(folder: Path, method: str, seed: int, gain: float = 0.0, **changes) -> Path:
    """An evaluated run: 45 lesion images and 15 lesion-free ones, two images a group."""
    generator = np.random.default_rng(seed)
    number = np.arange(CASES)
    lesion = number < 45
    noise = np.random.default_rng([seed, *method.encode()]).normal(0, 0.02, CASES)
    dice = np.clip(0.5 + generator.normal(0, 0.1, CASES) + gain + noise, 0, 1)
    table = pd.DataFrame(
        {
            **dict.fromkeys(COLUMNS, 0.5),
            "case_id": [f"{n:03d}" for n in number],
            "group": [str(n // 2) for n in number],
            "label": np.where(lesion, "benign", "normal"),
            "lesion_free": ~lesion,
            "dice": np.where(lesion, dice, 1.0),
            "true_area": np.where(lesion, 100.0, 0.0),
            "predicted_area": np.where(lesion, 90.0, 0.0),
            "false_positive": False,
            "lesion_probability": np.where(lesion, 0.8, 0.3),
        }
    )
    for column, values in changes.pop("columns", {}).items():
        table[column] = values
    table = table.sample(frac=1, random_state=seed)  # the order of rows must not matter
    run = folder / f"{method}-{seed}"
    run.mkdir()
    table.iloc[: changes.pop("rows", CASES)].to_csv(run / "per_image.csv", index=False)
    evaluation = {"averaged_by": "image", "units": {"distance": "px"}} | changes
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    (run / "run.json").write_text(json.dumps({"dataset": "d", "method": method, "seed": seed}))
    return run


def add_volumes(run: Path, gain: float, seed: int, true_voxels: int = 1000) -> None:
    """12 volumes of 8 patients, of which two have no lesion."""
    number = np.arange(12)
    lesion = number < 10
    dice = 0.6 + np.random.default_rng(seed).normal(0, 0.1, 12) + gain
    table = pd.DataFrame(
        {
            **dict.fromkeys(VOLUME_COLUMNS, 0.5),
            "volume_id": [f"v{n}" for n in number],
            "group": [f"p{n % 8}" for n in number],
            "lesion_free": ~lesion,
            "dice": np.where(lesion, dice, 1.0),
            "volume_error_ml": np.where(lesion, -3.0, 0.0),
            "true_voxels": np.where(lesion, true_voxels, 0),
            "predicted_voxels": np.where(lesion, 800, 0),
            "common_voxels": np.where(lesion, 600, 0),
        }
    )
    table.sample(frac=1, random_state=seed).to_csv(run / "per_volume.csv", index=False)


def make_runs(folder: Path, gains: dict[str, float], seeds=(0, 1, 2)) -> list[Path]:
    return [
        make_run(folder, method, seed, gain) for method, gain in gains.items() for seed in seeds
    ]


def test_a_known_gain_is_found_and_no_gain_is_not(tmp_path):
    runs = make_runs(tmp_path, {"c1": 0.0, "same": 0.0, "sks": 0.05})
    comparison = compare_runs(runs, reference="c1")
    rows = comparison.differences.set_index(["method", "metric"])
    gain = rows.loc[("sks", "dice_lesion")]
    assert gain["difference"] == pytest.approx(0.05, abs=0.01)
    assert gain["low"] > 0
    assert gain["p_holm"] < 0.01
    assert (gain["images"], gain["groups"]) == (45, 23)
    assert rows.loc[("same", "dice_lesion"), "p_holm"] > 0.05
    # Nothing differs in the other figures.
    assert rows.loc[("sks", "false_positive_rate"), "p_value"] == 1


def test_means_over_seeds_are_those_of_the_files(tmp_path):
    runs = make_runs(tmp_path, {"c1": 0.0, "sks": 0.05})
    methods = compare_runs(runs).methods.set_index("method")
    by_seed = []
    for run in runs[:3]:
        table = pd.read_csv(run / "per_image.csv")
        by_seed.append(table.loc[table["true_area"] > 0, "dice"].mean())
    assert methods.loc["c1", "dice_lesion"] == pytest.approx(np.mean(by_seed))
    assert methods.loc["c1", "dice_lesion_sd"] == pytest.approx(np.std(by_seed, ddof=1))
    assert methods.loc["c1", "seeds"] == 3
    assert methods.loc["sks", "auroc_label"] == 1


def test_p_values_are_adjusted_over_methods_within_a_metric(tmp_path):
    gains = {"c1": 0.0, "a": 0.004, "b": 0.002, "c": 0.05}
    table = compare_runs(make_runs(tmp_path, gains), reference="c1").differences
    for metric in TESTED:
        rows = table[table["metric"] == metric]
        assert rows["p_holm"].to_numpy() == pytest.approx(holm(rows["p_value"]), nan_ok=True)


def test_swapping_the_reference_flips_the_difference(tmp_path):
    runs = make_runs(tmp_path, {"c1": 0.0, "sks": 0.05})
    one = compare_runs(runs).differences.iloc[0]
    other = compare_runs(runs, reference="sks").differences.iloc[0]
    assert one["method"] == "sks"
    assert one["difference"] == pytest.approx(-other["difference"])
    assert one["low"] == pytest.approx(-other["high"])


@pytest.mark.parametrize("own_cases", [False, True])
def test_a_seed_without_an_endpoint_counts_in_neither_method(tmp_path, own_cases):
    """An evaluation of an earlier version; the gain of the seed that is left is 0.05."""
    runs = []
    for method, seed, gain in (("c1", 0, 0), ("c1", 1, 0), ("sks", 0, 0.3), ("sks", 1, 0.05)):
        dice = 0.5 + gain + np.arange(CASES) / 1000
        known = np.nan if (method, seed) == ("c1", 0) else dice
        columns = {"dice_known": np.where(np.arange(CASES) < 45, known, np.nan)}
        if own_cases:  # the second half is of the other seed's test cases too
            columns["case_id"] = [f"{n + 30 * seed:03d}" for n in range(CASES)]
            columns["group"] = [str((n + 30 * seed) // 2) for n in range(CASES)]
        runs.append(make_run(tmp_path, method, seed, columns=columns))
    rows = compare_runs(runs).differences.set_index("metric")
    assert rows.loc["dice_lesion_known", "difference"] == pytest.approx(0.05)
    assert rows.loc["dice_lesion_known", "images"] == 45


def test_one_group_has_no_interval(tmp_path):
    runs = [
        make_run(tmp_path, method, 0, gain, columns={"group": "all"})
        for method, gain in (("c1", 0.0), ("sks", 0.05))
    ]
    comparison = compare_runs(runs)
    assert "nan" not in comparison.markdown
    assert "| sks | dice_lesion | +0.0" in comparison.markdown


def test_seeds_with_test_sets_of_their_own_are_averaged_case_by_case(tmp_path):
    def half(seed: int) -> dict[str, list[str]]:
        return {
            "case_id": [f"{seed}-{n}" for n in range(CASES)],
            "group": [f"{seed}-{n // 2}" for n in range(CASES)],
        }

    runs = [
        make_run(tmp_path, method, seed, gain, columns=half(seed))
        for method, gain in (("c1", 0.0), ("sks", 0.05))
        for seed in (0, 1)
    ]
    row = compare_runs(runs).differences.iloc[0]
    assert row["images"] == 90
    assert row["difference"] == pytest.approx(0.05, abs=0.01)


def test_a_method_may_bear_the_name_of_a_column(tmp_path):
    runs = make_runs(tmp_path, {"group": 0.0, "case_id": 0.05, "value": 0.0})
    assert set(compare_runs(runs).differences["method"]) == {"case_id", "value"}


def test_tables_and_files(tmp_path):
    comparison = compare_runs(make_runs(tmp_path, {"c1": 0.0, "sks": 0.05}, seeds=(0, 1)))
    comparison.write(tmp_path / "out")
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written == comparison.summary
    assert written["reference"] == "c1"
    assert written["seeds"] == [0, 1]
    assert len(written["per_run"]) == 4
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert text == comparison.markdown
    assert "| sks | 2 |" in text
    assert "| sks | dice_lesion | +0.0" in text
    assert "Only 2 seed(s)" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| c1 |")}
    assert widths == {text.splitlines()[0].count("|")}
    assert len(pd.read_csv(tmp_path / "out" / "comparison_differences.csv")) == len(TESTED)


def test_one_method_alone_has_means_and_no_differences(tmp_path):
    comparison = compare_runs(make_runs(tmp_path, {"c1": 0.0}, seeds=(0,)))
    assert comparison.differences.empty
    assert comparison.summary["methods"][0]["dice_lesion_sd"] is None


def test_requests_that_make_no_sense_are_refused(tmp_path):
    runs = make_runs(tmp_path, {"c1": 0.0, "sks": 0.0}, seeds=(0, 1))
    with pytest.raises(UsageError, match="no run to compare"):
        compare_runs([])
    with pytest.raises(UsageError, match="reference 'c2' is not a method"):
        compare_runs(runs, reference="c2")
    with pytest.raises(UsageError, match="seed 0 twice"):
        compare_runs([runs[0], runs[0]])
    with pytest.raises(UsageError, match=r"method 'sks' lacks the seeds \[1\]"):
        compare_runs(runs[:3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 50}, "10 test cases in one only"),
        ({"columns": {"true_area": 7.0}}, "differ in true_area of 60 cases"),
        ({"columns": {"group": "g"}}, "belongs to group"),
        ({"averaged_by": "patient"}, "evaluate them in the same way"),
        ({"units": {"distance": "mm"}}, "evaluate them in the same way"),
    ],
)
def test_runs_that_are_not_on_one_footing_are_refused(tmp_path, changes, message):
    runs = [make_run(tmp_path, "c1", 0), make_run(tmp_path, "sks", 0, **changes)]
    with pytest.raises(DxsegError, match=message):
        compare_runs(runs)


@pytest.mark.parametrize("name", ["run.json", "per_image.csv", "evaluation.json"])
def test_a_run_that_lacks_a_file_is_refused(tmp_path, name):
    run = make_run(tmp_path, "c1", 0)
    (run / name).unlink()
    with pytest.raises(DxsegError, match=name):
        compare_runs([run])


def test_a_run_without_method_or_seed_is_refused(tmp_path):
    run = make_run(tmp_path, "c1", 0)
    (run / "run.json").write_text(json.dumps({"dataset": "d", "method": "c1"}))
    with pytest.raises(DxsegError, match="seed None"):
        compare_runs([run])


def test_runs_of_slices_are_compared_by_volume_too(tmp_path):
    gains = {"c1": 0.0, "sks": 0.08}
    runs = make_runs(tmp_path, gains)
    for run in runs:
        method, seed = run.name.split("-")
        add_volumes(run, gains[method], int(seed))
    comparison = compare_runs(runs)
    rows = comparison.differences.set_index("metric")
    assert list(rows.index) == [*TESTED, *VOLUME_TESTED]
    gain = rows.loc["volume_dice"]
    assert gain["difference"] == pytest.approx(0.08)
    assert gain["low"] > 0
    assert (gain["images"], gain["groups"]) == (10, 8)  # volumes with a lesion, their patients
    methods = comparison.methods.set_index("method")
    expected = [
        pd.read_csv(run / "per_volume.csv").query("~lesion_free")["dice"].mean() for run in runs[:3]
    ]
    assert methods.loc["c1", "volume_dice"] == pytest.approx(np.mean(expected))
    assert methods.loc["c1", "volume_dice_global"] == pytest.approx(1200 / 1800)
    assert methods.loc["c1", "volume_absolute_error_ml"] == pytest.approx(30 / 12)
    assert "volume_hd95 (mm)" in comparison.markdown
    assert "| sks | volume_dice | +0.080" in comparison.markdown
    assert comparison.summary["per_run"][0]["volume_nsd"] == 0.5


def test_runs_with_other_volumes_are_refused(tmp_path):
    runs = make_runs(tmp_path, {"c1": 0.0, "sks": 0.0}, seeds=(0,))
    add_volumes(runs[0], 0.0, 0)
    with pytest.raises(DxsegError, match="differ in the volumes of seed 0"):
        compare_runs(runs)
    add_volumes(runs[1], 0.0, 0, true_voxels=999)
    with pytest.raises(DxsegError, match="true voxels"):
        compare_runs(runs)
