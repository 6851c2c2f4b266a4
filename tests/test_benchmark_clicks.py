"""`benchmarks/clicks.py`: its simulated user and ideal brushes on shapes of known errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmark_scripts import load
from browsing import chromium

bench = load("clicks")

Y, X = np.indices((96, 128))
DISK = np.hypot(X - 70, Y - 40) < 25
EMPTY = np.zeros_like(DISK)


def test_the_user_finds_the_largest_error_on_either_side() -> None:
    mask = DISK.copy()
    mask[38:42, 68:72] = False
    mask[80:90, 5:25] = True
    error, inside = bench.largest_error(mask, DISK)
    assert (error.sum(), inside) == (200, False)
    mask[80:90, 5:25] = False
    error, inside = bench.largest_error(mask, DISK)
    assert (error.sum(), inside) == (16, True)


def test_an_ideal_brush_fills_a_disk_and_never_leaves_it() -> None:
    free = bench._count(bench._free_stroke, EMPTY, DISK)
    straight = bench._count(bench._straight_stroke, EMPTY, DISK)
    assert free["interactions"] == 1
    assert free["diameters"] == pytest.approx(np.pi * 25**2 / 25 / 50, rel=0.1)
    assert 1 < straight["interactions"] <= 6
    painted, _, _ = bench._straight_stroke(EMPTY, DISK)
    assert not (painted & ~DISK).any()


def test_a_mask_that_is_never_reached_counts_as_the_limit() -> None:
    def idle(mask: np.ndarray, _truth: np.ndarray) -> tuple[np.ndarray, float, float]:
        return mask, 1.0, 0.0

    found = bench._count(idle, EMPTY, DISK)
    assert (found["interactions"], found["dice"]) == (bench.LIMIT, 0)
    table = pd.DataFrame([{"arm": "idle", **found}] * 3)
    [row] = bench.summary(table).to_dict("records")
    assert (row["mean"], row["reached"], row["images"]) == (bench.LIMIT, 0, 3)


def test_the_pages_own_code_answers_clicks() -> None:
    rng = np.random.default_rng(0)
    gray = np.where(DISK, 60, 150) + rng.integers(-20, 21, DISK.shape)
    case = bench.Case("disk", gray.astype(np.uint8), DISK)
    with chromium() as browser:
        page = browser.new_page()
        page.route("**/*", bench._serve)
        page.goto("http://page.invalid/pixels.js")
        found = dict(bench._arms(page, case, rng))
    assert found["clicks, no model"]["interactions"] <= 4
    assert found["box, then clicks, no model"]["interactions"] <= 2
    assert len(found) == 4, "without a model four arms"
