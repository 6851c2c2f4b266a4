"""The demo, made tiny: phantoms, both methods, a report that says what it is."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import command_tables
from dxseg.commands.demo import MASKS, METHODS, NEXT, DemoResult, demo, method_config
from dxseg.config.presets import merge
from dxseg.errors import DxsegError


@pytest.fixture(scope="module")
def small(tiny_overrides: dict[str, Any]) -> dict[str, Any]:
    again = {"steps": 2, "steps_per_epoch": 1, "warmup_steps": 1}
    return merge(
        tiny_overrides,
        {"split": {"masks": 6, "validation_masks": 1}, "self_training": again},
    )


@pytest.fixture(scope="module")
def result(small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    return demo(output=tmp_path_factory.mktemp("demo"), images=24, overrides=small)


def test_the_report_names_both_methods_and_says_that_these_are_phantoms(result: DemoResult) -> None:
    page = result.report.read_text(encoding="utf-8")
    assert result.report.parent == result.runs[METHODS[0]]
    text = re.sub(r"<[^>]+>", " ", re.sub(r'src="data:[^"]*"', "", page))
    assert "phantom" in text.lower()
    assert "medical device" in text
    for method in METHODS:
        assert f"{method}, seed 0" in text
    assert page.count("data:image/png;base64,") >= 3, "curves, distribution and overlays"
    assert not re.search(r"(src|href)=\"(?!data:|#)", page), "self-contained"


def test_the_comparison_holds_both_methods_on_the_same_images(result: DemoResult) -> None:
    assert result.comparison.methods["method"].tolist() == list(METHODS)
    assert set(result.comparison.differences["method"]) == {METHODS[0]}
    assert result.comparison.summary["reference"] == "unet"


def test_both_methods_had_the_same_masks(result: DemoResult) -> None:
    method, control = (result.runs[method] / "splits.csv" for method in METHODS)
    assert method.read_bytes() == control.read_bytes()


def test_again_it_trains_nothing(result: DemoResult, small: dict[str, Any]) -> None:
    folder = result.report.parents[1]
    kept = [path for run in result.runs.values() for path in (run / "model").iterdir()]
    kept += [run / "evaluation.json" for run in result.runs.values()]
    before = [path.stat().st_mtime_ns for path in kept]
    again = demo(output=folder, images=24, overrides=small)
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert again.comparison.markdown == result.comparison.markdown


def test_a_folder_of_other_phantoms_is_refused(result: DemoResult, small: dict[str, Any]) -> None:
    folder = result.report.parents[1]
    with pytest.raises(DxsegError, match="24 phantoms, 30 are wanted"):
        demo(output=folder, images=30, overrides=small)
    with pytest.raises(DxsegError, match="another configuration"):
        demo(output=folder, images=24, seed=1, overrides=small)


def test_the_real_demo_gives_both_methods_the_same_steps_and_few_masks() -> None:
    method, control = (method_config(name) for name in METHODS)
    assert method.stage2 == control.stage2
    assert method.split == control.split
    assert method.split.masks == MASKS == 12
    assert control.stages == ["stage2"]


@pytest.mark.parametrize(
    ("low", "words"), [(0.02, "more than chance"), (-0.01, "so it may be chance")]
)
def test_the_words_follow_from_the_interval(result: DemoResult, low: float, words: str) -> None:
    differences = result.comparison.differences.assign(difference=0.05, low=low, high=0.08)
    comparison = replace(result.comparison, differences=differences)
    text = replace(result, comparison=comparison).words
    assert f"+0.05 (95% interval {low:+.2f} to +0.08): {words}." in text
    assert "phantoms" in text
    for method, dice in zip(METHODS, result.comparison.methods["dice_lesion"], strict=True):
        assert method in text
        assert f"{dice:.2f}" in text


def test_the_next_commands_exist() -> None:
    known = dict(command_tables.commands())
    for line in NEXT:
        _, *words = line.split()
        name = max((name for name in known if words[: len(name.split())] == name.split()), key=len)
        options = [word for word in words if word.startswith("--")]
        assert set(options) <= set(command_tables.options(known[name])), line


def test_the_command_prints_the_table_and_where_the_report_is(
    cli: Any, result: DemoResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = result.report.parents[1]
    for name in ("dxseg.training.run.train_run", "dxseg.evaluation.evaluate.evaluate_run"):
        monkeypatch.setattr(name, lambda *_, **__: None)
    shown = cli("demo", "--out", folder, "--images", 24)
    assert shown.exit_code == 0, shown.output
    said = " ".join(shown.stderr.split())
    assert "no patients" in said
    for part, title in enumerate(["24 phantoms", *METHODS, "comparison and report"], 1):
        assert f"Part {part} of 4: {title}" in said
    assert " ".join(result.words.split()) in " ".join(shown.stdout.split())
    assert all(command in shown.stdout for command in NEXT)
    assert re.search(r"dice_lesion\W+[01]\.\d{3}\W+[01]\.\d{3}", shown.stdout)
    assert str(result.report) in shown.stdout.replace("\n", "")
