"""Words and figures about results follow from the committed results."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from benchmark_scripts import load
from dxseg.config import DEFAULT_METHOD
from following import ROOT


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.001, 0.02, "better"), (-0.02, -0.001, "worse"), (-0.01, 0.02, "no difference shown")],
)
def test_the_words_follow_from_the_interval(low: float, high: float, words: str) -> None:
    row = {"difference": (low + high) / 2, "difference_low": low, "difference_high": high}
    assert load("make_results")._difference(pd.Series(row)).endswith(f": {words}")


def test_the_figures_of_the_readme_are_those_of_the_results() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    text = readme.split("## What was measured")[1].split("\n## ")[0]
    make = load("make_results")
    lung, _ = tables = list(make.equal_rules(ROOT / "results").values())
    shown = re.findall(r"^\| `([\w-]+)`: .+ \| ([\d.–]+) \| ([\d.–]+) \|$", text, re.MULTILINE)
    assert [method for method, *_ in shown] == ["unet", DEFAULT_METHOD, "sks-student"]
    for method, *figures in shown:
        assert figures == [make._dice(table, method) for table in tables]
    one_branch = [table.loc["unet-stage1-selftrained"] for table in tables]
    volumes = pd.read_csv(ROOT / "results" / "lgg-volumes" / "differences.csv")
    chosen = volumes["kind"].eq("hypothesis") & volumes["metric"].eq("volume_dice")
    volumes = volumes[chosen].set_index(["method", "against"])
    pairs = [(DEFAULT_METHOD, "unet-classifier"), ("sks-student", DEFAULT_METHOD)]
    cited = [
        lung.loc[DEFAULT_METHOD, ["gain", "gain_low", "gain_high"]],
        *(row[["difference", "difference_low", "difference_high"]] for row in one_branch),
        *(volumes.loc[pair, ["difference", "low", "high"]] for pair in pairs),
    ]
    for mean, low, high in cited:
        found = rf"{mean:.3f}\s+\((?:95%\s+interval\s+)?{low:.3f}\s+to\s+{high:.3f}\)"
        assert re.search(found, text), found


def test_the_figure_of_the_readme_shows_the_results() -> None:
    drawn = (ROOT / "docs" / "images" / "results.svg").read_text("utf-8")
    make = load("make_results")
    tables = make.equal_rules(ROOT / "results").values()
    figures = [make._dice(table, one) for table in tables for one in make.METHODS]
    wanted = [figure for figure in figures if figure != make.NOT_MEASURED]
    assert re.findall(r">(0\.\d{3})</text>", drawn) == wanted


def test_the_seeds_of_the_demo_are_those_that_were_kept() -> None:
    demo = load("demo_seeds")
    page = demo.PAGE.read_text(encoding="utf-8")
    assert demo.page_with(page, pd.read_csv(demo.TABLE)) == page
