"""The tables of an experiment: what is bold, what is marked, and that no text breaks them."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.volumes import COLUMNS as VOLUME_COLUMNS
from dxseg.experiments.aggregate import PooledRuns, compute_curves
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.page import draw_curves
from dxseg.experiments.preregistration import Registration
from dxseg.experiments.results import RunResult
from dxseg.experiments.runner import write_outputs

REGISTRATION = Registration(
    [{"sha256": "a" * 64, "at": "2030-01-02T03:04:05+00:00", "added": [], "text": "name: <b>"}],
    "d" * 64,
)


def test_everything_is_written_consistently(
    make_experiment: Callable[..., Experiment],
    make_results: Callable[..., list[RunResult]],
    phantoms: Path,
    tmp_path: Path,
) -> None:
    experiment = make_experiment(
        methods=["unet", "sks-evidence", {"name": "odd_100%", "base_method": "sks", "masks": [15]}],
        primary="sks-evidence",
        hypotheses=[
            {"method": method, "against": "unet", "margin": 0.05}
            for method in ("sks-evidence", "odd_100%")
        ],
    )
    results = make_results(
        experiment,
        lambda method, masks: (
            {"unet": 0.4, "sks-evidence": 0.5}.get(method, 0.3) + (masks == 60) * 0.2
        ),
    )
    lost = results[2]
    error = "<script>alert(1)</script> | diverged"
    row = lost.row | {"status": "failed", "error": error}
    results[2] = RunResult(lost.job, error, None, row)
    markdown = write(experiment, results, phantoms, tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    names = ("results", "curves", "differences", "masks_saved", "retraining")
    tables = {f"{name}.csv" for name in names}
    assert written == tables | {"table.md", "table.tex", "report.html", "curves.png"}
    main = markdown.split("\n\n")[1]
    assert re.search(r"^\| sks-evidence \(primary\) \| \*\*0\.[45]\d\d\*\* \(", main, re.MULTILINE)
    assert "| odd_100%† |" in main
    assert "| sks-evidence at 15 − unet at 15 | dice_lesion |" in markdown
    [unfinished] = re.findall(r"^\| (.*) at .*\(so far, runs are missing\) \|$", markdown, re.M)
    assert unfinished.startswith("odd_100%")
    assert (
        "| odd_100% | 15 | 0 | failed | &lt;script>alert(1)&lt;/script> \\| diverged |" in markdown
    )
    tex = (tmp_path / "table.tex").read_text()
    assert r"odd\_100\%\textdagger{}" in tex
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "These are phantoms" in page
    assert str(phantoms) not in page
    assert np.array(Image.open(tmp_path / "curves.png").convert("RGB")).std() > 1


def test_budgets_rise_in_the_tables_whatever_their_order_in_the_experiment(
    make_experiment: Callable[..., Experiment],
    make_results: Callable[..., list[RunResult]],
    phantoms: Path,
    tmp_path: Path,
) -> None:
    experiment = make_experiment(masks=["all", 60, 15])
    results = make_results(experiment, lambda method, _: 0.4 + 0.1 * (method != "unet"))
    markdown = write(experiment, results, phantoms, tmp_path)
    assert "| method | 15 masks | 60 masks | all masks |" in markdown
    saved = re.findall(
        r"^\| sks[\w-]* \| (\w+) \| as used \| 0\.\d+ \| [<>]?\d+ \(", markdown, re.MULTILINE
    )
    assert saved == ["15", "60", "all"]
    for way in ("as used", "diagnosis known", "at 10% false positives"):
        assert f"**Dice on lesion images, {way}, over the number of training masks**" in markdown


def test_budgets_of_volumes_are_called_so_and_have_the_dice_of_volumes(
    make_experiment: Callable[..., Experiment],
    make_results: Callable[..., list[RunResult]],
    phantoms: Path,
    tmp_path: Path,
) -> None:
    experiment = make_experiment(masks=[6, 12])
    level = {"unet": 0.4, "unet-stage1": 0.45, "sks-evidence": 0.5}
    results = [
        with_volumes(result, level[str(result.job.method)] + 0.01 * int(str(result.job.masks)))
        for result in make_results(experiment, lambda method, masks: level[method] + masks / 100)
    ]
    markdown = write(experiment, results, phantoms, tmp_path)
    assert "**Volumes saved**" in markdown
    assert "| method | volumes | Dice | value | volumes unet needs to equal it |" in markdown
    assert "| unet-stage1 | 6 | of volumes | 0.510 | 11 (11 to 11) |" in markdown
    assert "| method | 6 volumes | 12 volumes |" in markdown
    assert "data, 6 volumes**" in markdown
    page = (tmp_path / "report.html").read_text()
    for text in (markdown, page):
        assert not re.search("(saved|training|6|all) masks|[Mm]asks (saved|unet)", text)


def with_volumes(result: RunResult, dice: float) -> RunResult:
    """The same run with two volumes, of which every slice has a mask."""
    assert result.evaluated is not None
    row = dict.fromkeys(VOLUME_COLUMNS, 0.5) | {"dice": dice, "lesion_free": False}
    fold = result.job.fold.number
    names = [f"{fold}-{number}" for number in range(2)]
    volumes = pd.DataFrame([row, row]).assign(volume_id=names, group=names, true_voxels=9)
    counted = {"cases_train_volumes": result.job.masks}
    evaluated = replace(result.evaluated, volumes=volumes)
    return replace(result, evaluated=evaluated, row=result.row | counted)


def test_methods_on_fewer_folds_are_marked_and_never_the_best(
    make_experiment: Callable[..., Experiment],
    make_results: Callable[..., list[RunResult]],
    phantoms: Path,
    tmp_path: Path,
) -> None:
    methods = ["unet", {"name": "sks", "folds": [0]}, {"name": "unet-stage1", "masks": [15]}]
    experiment = make_experiment(methods=methods)
    levels = {"unet": 0.4, "unet-stage1": 0.5, "sks": 0.6}
    markdown = write(
        experiment, make_results(experiment, lambda method, _: levels[method]), phantoms, tmp_path
    )
    assert re.search(r"^\| sks§ \| 0\.[56]", markdown, re.MULTILINE)
    assert re.search(r"^\| unet-stage1 \| \*\*0\.[45]", markdown, re.MULTILINE)
    assert re.search(r"^\| sks \| 0\.\d+§ \(.*\| 0\.\d+§ \(", markdown, re.MULTILINE)
    assert markdown.count("§: on fewer folds") == 4
    assert r"sks\S{} &" in (tmp_path / "table.tex").read_text()


def test_points_on_fewer_images_are_not_drawn(
    make_experiment: Callable[..., Experiment], make_results: Callable[..., list[RunResult]]
) -> None:
    experiment = make_experiment()
    whole = make_results(experiment, lambda _, masks: 0.4 + masks / 1000)
    table = compute_curves(PooledRuns(experiment, whole))
    few = table["method"] == "sks-evidence"

    def draw(**columns: object) -> bytes:
        return draw_curves(experiment, table.assign(**columns), "masks")

    assert draw(images=table["images"] - few) not in (draw(), b"")
    assert draw(images=range(len(table))) == b""


def test_an_experiment_of_failures_only_still_writes_its_page(
    make_experiment: Callable[..., Experiment],
    make_results: Callable[..., list[RunResult]],
    phantoms: Path,
    tmp_path: Path,
) -> None:
    hypothesis = {"method": "sks-evidence", "against": "unet", "margin": 0.0}
    experiment = make_experiment(hypotheses=[hypothesis])
    results = make_results(experiment, lambda *_: None)
    markdown = write(experiment, results, phantoms, tmp_path, "validation")
    assert re.search(r"^\| sks-evidence at 15 .*\| not tested \|$", markdown, re.MULTILINE)
    alike = {(result.job.method, result.job.masks) for result in results}
    assert markdown.count("| 0, 1, 2 | failed | diverged |") == len(alike) < len(results)
    assert "failed" in (tmp_path / "report_validation.html").read_text()
    assert (tmp_path / "results_validation.csv").read_text().count("diverged") == len(results)


def test_committed_tables_give_the_tables_of_the_experiment(
    make_experiment: Callable[..., Experiment],
    make_results: Callable[..., list[RunResult]],
    phantoms: Path,
    tmp_path: Path,
) -> None:
    script = load_script()
    experiment = make_experiment(
        masks=[15, 60, "all"],
        hypotheses=[{"method": "sks-evidence", "against": "unet", "against_masks": "all"}],
    )
    levels = {15: 0.4, 60: 0.5, "all": 0.6}
    results = make_results(
        experiment, lambda method, masks: levels[masks] + 0.1 * (method != "unet")
    )
    lost = results[4]
    row = lost.row | {"status": "failed", "error": "diverged"}
    results[4] = RunResult(lost.job, "diverged", None, row)
    folder = tmp_path / "results" / "trial"
    markdown = write(experiment, results, phantoms, folder)
    (folder / "experiment.yaml").write_text(
        experiment.model_dump_json(by_alias=True, exclude_none=True)
    )
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin trial -->\nold\n<!-- end trial -->\nafter\n")
    words = ["--page", str(page), "--results", str(tmp_path / "results")]
    with pytest.raises(SystemExit, match="not in sync"):
        script.main([*words, "--check"])
    script.main(words)
    script.main([*words, "--check"])
    text = page.read_text()
    assert markdown in text
    assert text.startswith("before\n<!-- begin trial -->\n")
    assert text.endswith("<!-- end trial -->\nafter\n")
    page.write_text("no marker\n")
    with pytest.raises(SystemExit, match="each experiment needs one pair"):
        script.main(words)


def test_a_simulation_becomes_its_learning_curve(tmp_path: Path) -> None:
    script = load_script()
    page = tmp_path / "page.md"
    page.write_text("# Title\n<!-- begin suggest -->\n<!-- end suggest -->\nafter\n")
    words = ["--page", str(page), "--results", str(tmp_path / "results")]
    script.main(words)
    assert "Not run yet." in page.read_text()
    script.main([*words, "--check"])
    folder = tmp_path / "results" / "suggest"
    folder.mkdir(parents=True)
    figures = "dice_lesion,dice_lesion_sd,dice_all,dice_all_sd"
    (folder / "curve.csv").write_text(
        f"strategy,masks,seeds,{figures},false_positive_rate,false_positive_rate_sd,"
        "difference,low,high,p_value\n"
        "start,15,3,0.5,0.01,0.6,0.02,0.1,0.03,,,,\n"
        "suggest,25,3,0.55,0.01,0.61,0.02,0.2,0.03,0.031,-0.002,0.06,0.07\n"
    )
    script.main(words)
    lines = page.read_text().splitlines()
    assert "| 15 | start | 0.500 ± 0.010 |  | 0.600 ± 0.020 | 0.100 ± 0.030 |" in lines
    assert (
        "| 25 | suggest | 0.550 ± 0.010 | +0.031 (-0.002 to +0.060) | 0.610 ± 0.020 "
        "| 0.200 ± 0.030 |" in lines
    )
    assert "Not run yet." not in lines


def test_the_committed_page_is_in_sync() -> None:
    load_script().main(["--check"])


def write(
    experiment: Experiment,
    results: list[RunResult],
    phantoms: Path,
    folder: Path,
    split: str = "test",
) -> str:
    """All outputs of an experiment; gives its tables."""
    data = Dataset.load(phantoms)
    return write_outputs(experiment, data, REGISTRATION, results, folder, split)


def load_script() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "make_results.py"
    spec = importlib.util.spec_from_file_location("make_results", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
