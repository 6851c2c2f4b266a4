"""Draw dual_u.svg, the method in a picture: `python docs/images/dual_u.py [FILE]`."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

COARSE, FINE, PROMPT, INK = "#2b7a78", "#8a4f9e", "#c8641a", "#333333"
STRIDES = (4, 8, 16, 32)
TOP = {"coarse": 8.0, "fine": 3.4}
SIDES = {"encoder": (1.0, 1), "decoder": (9.2, -1)}


def level(branch: str, side: str, number: int) -> tuple[float, float]:
    """Centre of the box of a stride; the deepest lies in the middle, between both sides."""
    x, towards = SIDES[side]
    if number == len(STRIDES) - 1:
        return 5.1, TOP[branch] - 1.9
    return x + towards * 1.25 * number, TOP[branch] - 0.62 * number


def box(axes: Axes, at: tuple[float, float], text: str, colour: str, width: float = 1.0) -> None:
    """A labelled box around a centre."""
    x, y = at
    axes.add_patch(
        Rectangle((x - width / 2, y - 0.2), width, 0.4, facecolor=colour, alpha=0.18, lw=0)
    )
    axes.add_patch(Rectangle((x - width / 2, y - 0.2), width, 0.4, fill=False, ec=colour, lw=1.1))
    axes.text(x, y - 0.01, text, ha="center", va="center", color=INK, fontsize=8)


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str,
    style: str = "-",
    bend: float = 0.0,
) -> None:
    """An arrow from box to box; `bend` curves it."""
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=8, color=colour, lw=1.0, ls=style,
            shrinkA=9, shrinkB=9, connectionstyle=f"arc3,rad={bend}",
        )
    )  # fmt: skip


def branch(axes: Axes, name: str, letters: tuple[str, str], colour: str) -> None:
    """An encoder down, a decoder up."""
    deepest = len(STRIDES) - 1
    for side, letter in zip(SIDES, letters, strict=True):
        for number in range(deepest):
            box(axes, level(name, side, number), f"{letter}, 1/{STRIDES[number]}", colour)
    box(axes, level(name, "encoder", deepest), f"{letters[0]}, 1/32", colour)
    for number in range(deepest):
        arrow(axes, level(name, "encoder", number), level(name, "encoder", number + 1), colour)
        arrow(axes, level(name, "decoder", number + 1), level(name, "decoder", number), colour)


def draw() -> Figure:
    """The two branches, what goes between them, and what comes out."""
    figure = Figure(figsize=(9.2, 5.6))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-1.2, 13.2), ylim=(0.2, 9.3))
    axes.axis("off")
    branch(axes, "coarse", ("c", "u"), COARSE)
    branch(axes, "fine", ("s + c", "decoder"), FINE)
    deepest = len(STRIDES) - 1
    for number in range(deepest):
        across = {"encoder": "encoder", "decoder": "decoder"}
        for side, end in across.items():
            style = "-" if side == "encoder" else (0, (5, 2))
            arrow(axes, level("coarse", side, number), level("fine", end, number), PROMPT, style)
        arrow(axes, level("fine", "encoder", number), level("fine", "decoder", number), FINE)
    arrow(axes, level("coarse", "encoder", deepest), level("fine", "encoder", deepest), PROMPT)

    for name, words in {"coarse": "stage 1: all diagnoses", "fine": "stage 2: few masks"}.items():
        colour = COARSE if name == "coarse" else FINE
        axes.text(1.0, TOP[name] + 0.75, words, color=colour, fontsize=10, weight="bold", ha="left")
        box(axes, (-0.5, TOP[name]), "image", INK, 0.9)
        arrow(axes, (-0.5, TOP[name]), level(name, "encoder", 0), INK)
    box(axes, (11.9, 8.0), "evidence maps", COARSE, 1.7)
    box(axes, (11.9, 6.9), "diagnosis", COARSE, 1.7)
    box(axes, (11.9, 3.4), "mask", FINE, 1.2)
    arrow(axes, level("coarse", "decoder", 0), (11.2, 8.0), COARSE)
    arrow(axes, (11.9, 8.0), (11.9, 6.9), COARSE)
    arrow(axes, level("fine", "decoder", 0), (11.4, 3.4), FINE)
    arrow(axes, (11.5, 8.0), (9.5, 3.4), PROMPT, (0, (1, 1.5)), bend=-0.15)
    arrow(axes, (11.9, 6.9), (11.9, 3.4), INK, (0, (1, 1.5)))
    legend = {
        "feature share skip: the pyramids are fused at every level": "-",
        "long skip: the coarse decoder is concatenated": (0, (5, 2)),
        "evidence prompt: the diagnosis, made spatial (every level; one drawn)": (0, (1, 1.5)),
    }
    for row, (words, style) in enumerate(legend.items()):
        axes.plot([0.5, 1.3], [0.95 - 0.3 * row] * 2, color=PROMPT, ls=style, lw=1.4)
        axes.text(1.5, 0.95 - 0.3 * row, words, va="center", fontsize=8, color=INK)
    axes.text(12.05, 5.1, "gate: surely\nno lesion,\nno mask", fontsize=8, color=INK, va="center")
    return figure


def main(path: Path) -> None:
    """Write the picture; the same script gives the same bytes."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dxseg"}):
        draw().savefig(path, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg"))
