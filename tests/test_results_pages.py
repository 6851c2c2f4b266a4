"""Words and figures about results follow from the committed results."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from benchmark_scripts import load
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
    tables = make.equal_rules(ROOT / "results").values()
    shown = re.findall(r"^\| `([\w-]+)`: .+ \| ([\d.–]+) \| ([\d.–]+) \|$", text, re.MULTILINE)
    assert [method for method, *_ in shown] == list(make.METHODS)
    for method, *figures in shown:
        assert figures == [make._dice(table, method) for table in tables]
    for method in ("unet", "unet-stage1-selftrained"):
        for row in (table.loc[method] for table in tables):
            mean, low, high = (
                f"{row[key]:.3f}" for key in ("difference", "difference_low", "difference_high")
            )
            found = rf"{re.escape(mean)}\s+\((?:95%\s+interval\s+)?{re.escape(low)}\s+to\s+{high}\)"
            assert re.search(found, text), (method, mean, low, high)


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
