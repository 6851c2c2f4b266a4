"""Draw docs/images/results.svg, the figure of the README, from the committed results.

PYTHONPATH=benchmarks python docs/images/results.py
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dxseg.io.atomic import write_bytes_atomic
from make_results import HEADLINE, METHODS, RESULTS, equal_rules

COLOR, EMPHASIS = "#5b6b7b", "#0b6e99"
SHORT = {
    "a student of this one branch": "a student of one branch",
    "a student of these two branches": "a student of two branches",
}


def draw_figure() -> bytes:
    """Draw one panel per dataset: Dice with its 95% interval, a row per method."""
    tables = equal_rules(RESULTS)
    style = {"svg.hashsalt": "results", "svg.fonttype": "none", "font.size": 10}
    with mpl.rc_context(style):
        figure = Figure(figsize=(9, 3.0), layout="constrained")
        panels = figure.subplots(1, len(tables), sharex=True, sharey=True)
        for panel, (name, table) in zip(panels, tables.items(), strict=True):
            _draw_panel(panel, HEADLINE[name], table)
        figure.supxlabel("Dice on lesion images after training with 35 masks, 95% interval")
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def _draw_panel(panel: Axes, title: str, table: pd.DataFrame) -> None:
    for place, method in enumerate(METHODS):
        if method not in table.index:
            panel.annotate("not measured under this rule", (0.6, place), va="center", fontsize=9)
            continue
        row = table.loc[method]
        color = COLOR if place == 0 else EMPHASIS
        panel.plot([row["low"], row["high"]], [place, place], color=color, linewidth=3, alpha=0.4)
        panel.plot(row["dice_lesion"], place, "o", color=color, markersize=7)
        panel.annotate(
            f"{row['dice_lesion']:.3f}",
            (row["dice_lesion"], place),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=color,
        )
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_yticks(range(len(METHODS)), [SHORT.get(text, text) for text in METHODS.values()])
    panel.set_ylim(len(METHODS) - 0.4, -0.8)
    panel.grid(axis="x", alpha=0.3)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)


if __name__ == "__main__":
    write_bytes_atomic(Path(__file__).with_suffix(".svg"), draw_figure())
