"""The benchmarks run and report what their README describes; speed needs an idle machine."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import dxseg
from benchmark_scripts import json_line, load
from dxseg.data.readers.images import read_image
from dxseg.data.table.dataset import Dataset
from extras import need_ray

pytestmark = pytest.mark.slow  # nothing of the package depends on them


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_train_throughput_reports_both_sides_and_their_ratio(capsys, monkeypatch):
    bench = load("train_throughput")
    monkeypatch.setattr(bench, "PHANTOMS", 10)
    tiny = ["--size", "32", "--batch", "2", "--steps", "1", "--rounds", "2", "--threads", "1"]
    result = bench.main(tiny)
    assert json_line(capsys.readouterr().out) == result
    assert result["benchmark"] == "train_throughput"
    assert (result["method"], result["image_size"], result["batch_size"]) == ("sks", 32, 2)
    assert result["torch_threads"] == 1
    assert len(result["ratios"]) == result["rounds"] == 2
    assert min(result["real_images_per_s"], result["bare_images_per_s"], *result["ratios"]) > 0
    assert not torch.are_deterministic_algorithms_enabled()


def test_predict_memory_reads_it_after_a_tenth_a_half_and_all(capsys, monkeypatch):
    bench = load("predict_memory")
    monkeypatch.setattr(bench, "PHANTOMS", 3)
    result = bench.main(["--images", "20", "--threads", "1"])
    assert json_line(capsys.readouterr().out) == result
    assert (result["images"], result["predicted"], result["image_size"]) == (20, 20, 64)
    assert list(result["memory_mb"]) == ["2", "10", "20"]
    first, *_, last = result["memory_mb"].values()
    assert first > 50, "a process with torch in it"
    assert result["last_of_first"] == pytest.approx(last / first, abs=0.001)


def test_predict_memory_of_volumes_has_a_peak_and_a_time_for_each(capsys):
    bench = load("predict_memory")
    small = ["--volumes", "3", "--side", "64", "--slices", "4", "--threads", "1"]
    result = bench.main(small)
    assert json_line(capsys.readouterr().out) == result
    assert (result["predicted"], result["shape"]) == (3, [64, 64, 4])
    assert min(result["peak_mb"]) > 50
    assert len(result["peak_mb"]) == len(result["seconds"]) == 3


def test_nnunet_2d_scores_saved_probabilities_as_dxseg_evaluate_does(tmp_path, phantoms, tiny, cli):
    """Those of a run of our own, saved as nnU-Net saves its own, give the run's own figures."""
    bench = load("nnunet_2d")
    train = [
        "train",
        phantoms,
        "--out",
        tmp_path / "run",
        "--method",
        "unet",
        "--masks",
        6,
        *tiny(),
    ]
    assert cli(*train).exit_code == 0
    expected = dxseg.evaluate(tmp_path / "run")
    data = Dataset.load(phantoms)
    predictor = dxseg.Predictor.from_folder(tmp_path / "run" / "model")
    splits = tmp_path / "run" / "splits.csv"
    for row in data.cases.itertuples():
        [prediction] = predictor.predict([read_image(data.image_path(row))])
        likely = prediction.probabilities
        saved = np.stack([1 - likely, likely], axis=1)[0][:, None]
        np.savez(tmp_path / f"{row.case_id}.npz", probabilities=saved)
    found = bench.evaluate(data, splits, tmp_path).summary
    for figure in bench.FIGURES:
        assert found[figure] == pytest.approx(expected[figure], abs=1e-6), figure


def test_archive_units_tells_what_a_result_costs(capsys):
    bench = load("archive_units")
    result = bench.main(["--images", "4", "--names", "1100"])
    assert json_line(capsys.readouterr().out) == result
    assert list(result["steps_ms"]) == ["read", "resize, network, back", "row and mask", "Parquet"]
    assert min(*result["steps_ms"].values(), result["master"]["find_done_us"]) > 0
    assert 0 < result["bytes"]["result"] < result["bytes"]["image"]


def test_ray_predict_compares_the_engines(capsys):
    need_ray()
    bench = load("ray_predict")
    few = ["--images", "20", "--parts", "5", "--workers", "1"]
    engines = bench.main(few)["engines"]
    assert list(engines["sides"]) == ["in-process", "ray, 1 worker"]
    assert engines["of_in_process"]["in-process"] == {"cpu_ms": 1.0, "later_cpu_ms": 1.0}
    for side in (*engines["sides"].values(), engines["idle_part"]):
        assert min(side.values()) >= 0


def test_inference_backends_reports_every_side_against_the_eager_loop(capsys):
    bench = load("inference_backends")
    tiny = ["--images", "3", "--native", "64", "--size", "32", "--rounds", "1", "--threads", "1"]
    result = bench.main(tiny)
    assert json_line(capsys.readouterr().out) == result
    ours = [f"{method}, {way}" for method in bench.METHODS for way in bench.USUAL_WAYS]
    sides = ["eager", "eager, exported", *ours]
    for figure in ("images_per_s", "of_eager", "network_of_eager"):
        assert list(result[figure]) == sides
        assert min(result[figure].values()) > 0
    assert result["of_eager"]["eager"] == result["network_of_eager"]["eager"] == 1.0


def test_predict_steps_times_every_step_of_every_side(capsys):
    bench = load("predict_steps")
    tiny = ["--images", "3", "--native", "64", "--size", "32", "--rounds", "1"]
    result = bench.main(tiny)
    assert json_line(capsys.readouterr().out) == result
    assert list(result["ms"]) == [
        f"{method}, {way}" for method in ("unet", "sks") for way in ("torch", "openvino int8")
    ]
    for steps in result["ms"].values():
        assert list(steps) == ["read", "fit", "network", "back", "mask PNG", "row"]
        assert min(steps.values()) >= 0
        assert steps["network"] > 0


def test_million_rows_times_every_step_and_reports_memory(capsys, tmp_path):
    bench = load("million_rows")
    small = ["--rows", "2000", "--masks", "5", "--dataset", str(tmp_path / "dataset")]
    result = bench.main(small)
    assert json_line(capsys.readouterr().out) == result
    assert (result["benchmark"], result["rows"]) == ("million_rows", 2000)
    *steps, whole = result["seconds"].values()
    assert len(steps) == 6
    assert whole == pytest.approx(sum(steps), abs=0.01)
    assert result["peak_gib"] > 0.01
    assert result["peak_includes_making"]
    assert not bench.main(small)["peak_includes_making"]


def test_check_scale_finds_what_it_planted(capsys):
    bench = load("check_scale")
    result = bench.main(["--images", "200", "--side", "64", "--workers", "1"])
    assert json_line(capsys.readouterr().out) == result
    assert (result["images"], result["workers"]) == (200, 1)
    assert result["found"] == result["planted"] > 10
    assert min(*result["images_per_s"].values(), result["peak_mb"]) > 0
    assert list(result["ratio"]) == ["import", "check"]


def simulate(bench, phantoms, out, rounds, *words) -> pd.DataFrame:
    sizes = ["--start", "3", "--add", "2", "--rounds", str(rounds), "--seeds", "1"]
    return bench.main([str(phantoms), "--out", str(out), *sizes, *words])


def test_suggest_compares_with_random_selection_and_continues_where_it_stopped(
    capsys, phantoms, tiny, tmp_path
):
    bench = load("suggest")
    curve = simulate(bench, phantoms, tmp_path, 1, *tiny())
    points = [["start", 3], ["random", 5], ["suggest", 5]]
    assert curve[["strategy", "masks"]].to_numpy().tolist() == points
    assert curve["dice_lesion"].between(0, 1).all()
    by_strategy = curve.set_index("strategy")
    assert by_strategy["difference"].isna().tolist() == [True, True, False]
    gained = by_strategy.loc["suggest", "dice_lesion"] - by_strategy.loc["random", "dice_lesion"]
    assert by_strategy.loc["suggest", "difference"] == pytest.approx(gained)
    runs = pd.read_csv(tmp_path / "runs.csv").set_index("strategy")
    expected = by_strategy["dice_lesion"].to_dict()
    assert runs["dice_lesion"].to_dict() == pytest.approx(expected, abs=1e-4)
    for name in ("random-5", "suggest-5"):
        record = json.loads((tmp_path / "seed-1" / name / "run" / "run.json").read_text())
        assert record["cases"]["train_masks"] == 5
        assert record["stage1_from"] == str(tmp_path / "seed-1" / "start-3" / "run")

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("run.json")}
    assert simulate(bench, phantoms, tmp_path, 1, *tiny()).equals(curve)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("run.json")} == before


def test_every_strategy_of_suggest_adds_masks_to_its_own(
    capsys, monkeypatch, phantoms, trained, tmp_path
):
    def copy_a_run(dataset, output, *, seed, overrides, **_):
        shutil.copytree(trained, output, dirs_exist_ok=True)
        record = json.loads((trained / "run.json").read_text())
        record |= {"method": overrides["method"], "seed": seed}
        (output / "run.json").write_text(json.dumps(record))

    monkeypatch.setattr(dxseg, "train", copy_a_run)
    bench = load("suggest")
    curve = simulate(bench, phantoms, tmp_path, 2, "--strategies", *bench.STRATEGIES)
    assert len(curve) == 1 + 2 * len(bench.STRATEGIES)
    lesions = ~Dataset.load(phantoms).lesion_free.to_numpy()
    shown = {path.parent.name: use_mask(path) for path in tmp_path.glob("seed-1/*/splits.csv")}
    for strategy in bench.STRATEGIES:
        chain = [shown[name] for name in ("start-3", f"{strategy}-5", f"{strategy}-7")]
        for known, more in itertools.pairwise(chain):
            assert not (known & ~more).any(), strategy
            assert (more & ~known & lesions).sum() == (more & ~known).sum() == 2, strategy


def use_mask(splits: Path) -> np.ndarray:
    return pd.read_csv(splits)["use_mask"].to_numpy()


def test_journeys_end_and_are_no_longer_than_they_were(capsys):
    counts = load("journeys").main([])
    assert json_line(capsys.readouterr().out) == {"benchmark": "journeys", **counts}
    limits = [(16, 27), (15, 30), (26, 59)]  # as in the README of the benchmarks
    for (title, (files, functions)), (most_files, most_functions) in zip(
        counts.items(), limits, strict=True
    ):
        assert 5 < files <= most_files, title
        assert files < functions <= most_functions, title


def test_serve_load_loses_nothing(capsys):
    bench = load("serve_load")
    small = ["--requests", "30", "--clients", "4", "--slow", "2", "--queue", "2", "--size", "64"]
    result = bench.main(small)
    assert json_line(capsys.readouterr().out) == result
    assert (result["lost"], result["exit_code"]) == (0, 0)
    assert set(result["stopping"]["statuses"]) <= {"200", "429", "503", "ConnectError"}
    assert result["stopping"]["in_flight"] > 0
    assert result["stopping"]["seconds"] < 60
    assert {key: value for key, value in result["statuses"].items() if key != "429"} == {
        "200": 27,
        "422": 3,
    }
    assert 0 < result["seconds_p50"] <= result["seconds_p95"] <= result["seconds_p99"]
    assert len(result["memory_mb"]) == 10
    assert min(*result["memory_mb"], result["requests_per_s"]) > 0


@pytest.mark.parametrize("name", ["train_throughput", "inference_backends"])
def test_help_describes_what_is_measured(name, capsys):
    with pytest.raises(SystemExit) as stop:
        load(name).main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--dataset" in shown
    assert "medians over rounds" in " ".join(shown.split()) or "median over these rounds" in shown


def test_native_resolution_compares_patches_with_reduced_slices(tmp_path):
    bench = load("native_resolution")
    y, x = np.mgrid[:56, :56]
    rows = []
    for number in range(30):
        generator = np.random.default_rng(number)
        pixels = generator.normal(40, 10, (56, 56)).clip(0, 255)
        disk = np.hypot(y - 28, x - 28) < 3 + number % 4
        mask = f"masks/{number}.png" if number % 2 else ""
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray((pixels + 120 * disk * bool(mask)).astype(np.uint8)).save(
            tmp_path / f"images/{number}.png"
        )
        if mask:
            Image.fromarray(disk.astype(np.uint8) * 255).save(tmp_path / mask)
        rows.append((f"images/{number}.png", mask, "nodule" if mask else "none", f"P{number}"))
    columns = ["image", "mask", "diagnosis", "patient"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "cases.csv", index=False)
    steps = ["--set", "stage1.steps=1", "--set", "stage2.steps=1", "--masks", "5"]

    table = bench.main([str(tmp_path), "--out", str(tmp_path / "out"), "--windows", "30", *steps])

    reduced, native = table.to_dict("records")
    assert reduced["attainable"] < 0.8
    assert native["attainable"] == 1
    assert native["vanished"] == 0
    assert 0 <= native["dice_lesion_known"] <= 1
