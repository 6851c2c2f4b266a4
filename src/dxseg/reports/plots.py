"""Plots of the reports as PNG, with matplotlib's object interface; no display needed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Okabe & Ito, "Color Universal Design", 2008; readable on the white background of the plots.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def read_metrics(path: str | Path) -> pd.DataFrame:
    """Read a `metrics.csv` of Lightning's CSVLogger, one row per epoch.

    The logger writes training and validation values of an epoch in separate rows; here they are
    averaged over the epoch's rows. Incomplete rows of a killed process are skipped.

    Args:
        path: The CSV file with the columns `epoch`, `step` and any metrics.

    Returns:
        Indexed by epoch in ascending order, without `step` and empty columns. Empty if the file
        does not exist or has no epoch.
    """
    try:
        # As text without quotes: an incomplete value must not affect its column or later rows.
        table = pd.read_csv(
            path, dtype=str, quoting=csv.QUOTE_NONE, on_bad_lines="skip", encoding_errors="replace"
        )
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame()
    if "epoch" not in table:
        return pd.DataFrame()
    columns = {name: pd.to_numeric(table[name], errors="coerce") for name in table}
    numbers = pd.DataFrame(columns, dtype=float).dropna(subset="epoch").astype({"epoch": int})
    epochs = numbers.groupby("epoch").mean().drop(columns="step", errors="ignore")
    return epochs.dropna(axis="columns", how="all")


def training_curves(stages: Mapping[str, pd.DataFrame]) -> bytes:
    """Plot losses at the left and scores at the right, one row per stage.

    A column is a loss if its name contains `loss`. Learning rates, whose names start with `lr`, are
    left out.

    Args:
        stages: Title to table of `read_metrics`; empty tables are left out.

    Returns:
        PNG bytes; empty if there is nothing to plot.
    """
    shown = {title: table for title, table in stages.items() if not table.empty}
    if not shown:
        return b""
    figure = _figure(9.0, 2.9 * len(shown))
    axes = figure.subplots(len(shown), 2, squeeze=False)
    for (title, table), (left, right) in zip(shown.items(), axes, strict=True):
        names = [str(name) for name in table.columns if not str(name).startswith("lr")]
        losses = [name for name in names if "loss" in name]
        _lines(left, table, losses, f"{title}: loss")
        _lines(right, table, [name for name in names if name not in losses], f"{title}: scores")
        if any(name not in losses for name in names):
            right.set_ylim(min(0.0, right.get_ylim()[0]), max(1.0, right.get_ylim()[1]))
    return _png(figure)


def score_distribution(scores: Mapping[str, NDArray[np.float64]], name: str) -> bytes:
    """Plot a score of every image, one row per run, with the median as a bar.

    Args:
        scores: Name of each run to its scores, 0 to 1; NaN is left out.
        name: Name of the score on the axis.

    Returns:
        PNG bytes; empty if there is no score.
    """
    finite = {run: values[np.isfinite(values)] for run, values in scores.items()}
    finite = {run: values for run, values in finite.items() if values.size}
    if not finite:
        return b""
    figure = _figure(9.0, 0.9 + 0.55 * len(finite))
    axes = figure.subplots()
    # The jitter within a row separates dots; a fixed seed keeps reports reproducible.
    generator = np.random.default_rng(0)
    for row, (values, color) in enumerate(zip(finite.values(), _cycle(len(finite)), strict=True)):
        heights = row + generator.uniform(-0.25, 0.25, values.size)
        axes.plot(values, heights, "o", markersize=3, alpha=0.45, color=color)
        axes.plot([np.median(values)] * 2, [row - 0.36, row + 0.36], color="black", linewidth=2)
    axes.set_yticks(range(len(finite)), [_label_text(run, 40) for run in finite])
    axes.set_ylim(len(finite) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(_label_text(f"{name} (one dot per image, bar: median)"))
    return _png(figure)


def efficiency_curves(lines: Mapping[str, pd.DataFrame], name: str, unit: str) -> bytes:
    """Plot a score over a number of masks or volumes: a line per method, a band its interval.

    Args:
        lines: Method to a table with the columns masks, value, low, high, masks ascending; a single
            row is drawn as a point.
        name: Name of the score on the axis.
        unit: What is counted, "masks" or "volumes".

    Returns:
        PNG bytes; empty if there is nothing to plot.
    """
    if not lines:
        return b""
    figure = _figure(9.0, 5.0)
    axes = figure.subplots()
    for (method, table), color in zip(lines.items(), _cycle(len(lines)), strict=True):
        masks = table["masks"].to_numpy(dtype=float)
        low, high = (table[end].to_numpy(dtype=float) for end in ("low", "high"))
        axes.plot(
            masks, table["value"], "o-", color=color, markersize=4, label=_label_text(method, 40)
        )
        if len(masks) > 1:
            axes.fill_between(masks, low, high, color=color, alpha=0.12, linewidth=0)
        else:
            axes.plot([masks[0]] * 2, [low[0], high[0]], color=color)
    axes.set_xscale("log")
    ticks = sorted({float(value) for table in lines.values() for value in table["masks"]})
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"training {unit}")
    axes.set_ylabel(_label_text(name))
    axes.legend(fontsize=8)
    return _png(figure)


def _lines(axes: Any, table: pd.DataFrame, names: list[str], title: str) -> None:
    for name, color in zip(names, _cycle(len(names)), strict=True):
        values = table[name].dropna()
        style = "-" if name.startswith("val") else "--"
        marker = "o" if len(values) < 25 else ""
        axes.plot(
            values.index,
            values.to_numpy(),
            style,
            marker=marker,
            markersize=3,
            color=color,
            label=_label_text(name.replace("_", " ")),
        )
    axes.set_title(_label_text(title), fontsize=10)
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if names:
        axes.legend(fontsize=8)
    else:
        axes.text(0.5, 0.5, "nothing logged", ha="center", va="center", transform=axes.transAxes)


def _cycle(count: int) -> list[str]:
    return [COLORS[index % len(COLORS)] for index in range(count)]


def _label_text(text: str, limit: int = 120) -> str:
    # A dollar sign would start matplotlib's formula mode, and a lone one fail there.
    return text[:limit].replace("$", r"\$")


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    # Without software version and date, so that the same data gives the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
