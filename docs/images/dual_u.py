"""Draw dual_u.svg, the method in a picture: `python docs/images/dual_u.py [FILE]`."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

COARSE, FINE, PROMPT, INK = "#2b7a78", "#8a4f9e", "#c8641a", "#333333"
STRIDES = (4, 8, 16, 32)
TOP = {"c": 8.0, "s": 3.4}
"""Height of the two branches, by the letter of their encoder."""
DOTTED, DASHED = (0, (1, 1.5)), (0, (5, 2))


class Board:
    """Boxes by name, and arrows between them."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.boxes: dict[str, Rectangle] = {}

    def box(
        self, name: str, at: tuple[float, float], color: str, text: str = "", width: float = 1.1
    ) -> None:
        """A box around a center, labelled by its name unless another text is given."""
        corner = (at[0] - width / 2, at[1] - 0.2)
        for style in ({"color": "white", "lw": 0}, {"fc": color + "2e", "ec": color, "lw": 1.1}):
            self.boxes[name] = self.axes.add_patch(Rectangle(corner, width, 0.4, zorder=2, **style))
        self.axes.text(*at, text or name, ha="center", va="center", color=INK, fontsize=8, zorder=3)

    def arrow(self, start: str, end: str, color: str, style: Any = "-", bend: float = 0.0) -> None:
        """From the edge of one box to the edge of another."""
        first, last = self.boxes[start], self.boxes[end]
        self.axes.add_patch(
            FancyArrowPatch(
                first.get_center(), last.get_center(), patchA=first, patchB=last,
                shrinkA=0, shrinkB=1, arrowstyle="-|>", mutation_scale=9, color=color, lw=1.1,
                ls=style, connectionstyle=f"arc3,rad={bend}",
            )
        )  # fmt: skip


def draw_branch(board: Board, encoder: str, decoder: str, color: str, words: str) -> None:
    """An image, an encoder down, a decoder up."""
    top = TOP[encoder]
    board.box(f"image {encoder}", (-0.4, top), INK, "image", 0.9)
    board.axes.text(-0.85, top + 0.6, words, color=color, fontsize=10, weight="bold")
    for number, stride in enumerate(STRIDES[:-1]):
        for letter, x in ((encoder, 1.2 + 1.3 * number), (decoder, 9.6 - 1.3 * number)):
            board.box(f"{letter}, 1/{stride}", (x, top - 0.62 * number), color)
    board.box(f"{encoder}, 1/32", (5.4, top - 1.9), color)
    down = [f"image {encoder}", *(f"{encoder}, 1/{stride}" for stride in STRIDES)]
    up = [down[-1], *(f"{decoder}, 1/{stride}" for stride in reversed(STRIDES[:-1]))]
    for path in (down, up):
        for start, end in pairwise(path):
            board.arrow(start, end, color)


def draw_prompts(board: Board) -> None:
    """What enters the lower branch from the upper one."""
    for stride in STRIDES:
        board.arrow(f"c, 1/{stride}", f"s, 1/{stride}", PROMPT)
        if stride != STRIDES[-1]:
            board.arrow(f"u, 1/{stride}", f"d, 1/{stride}", PROMPT, DASHED)
            board.arrow(f"s, 1/{stride}", f"d, 1/{stride}", FINE)
    board.arrow("evidence maps", "d, 1/4", PROMPT, DOTTED, bend=-0.12)
    board.arrow("diagnosis", "mask", INK, DOTTED)
    legend = {
        "feature share skip: s is fused with c at every level, and goes into the decoder d": "-",
        "long skip: the coarse decoder u is concatenated": DASHED,
        "evidence prompt: the diagnosis, made spatial (at every level; one is drawn)": DOTTED,
    }
    for row, (words, style) in enumerate(legend.items()):
        height = 0.95 - 0.3 * row
        board.axes.plot([0.65, 1.5], [height, height], color=PROMPT, ls=style, lw=1.4)
        board.axes.text(1.7, height, words, va="center", fontsize=8, color=INK)


def draw() -> Figure:
    """The two branches, what goes between them, and what comes out."""
    figure = Figure(figsize=(9.2, 5.6))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-1.1, 13.6), ylim=(0.1, 9.1))
    axes.axis("off")
    board = Board(axes)
    draw_branch(board, "c", "u", COARSE, "stage 1: all images, their diagnoses")
    draw_branch(board, "s", "d", FINE, "stage 2:\nfew masks")
    board.box("evidence maps", (12.2, TOP["c"]), COARSE, width=1.8)
    board.box("diagnosis", (12.2, TOP["c"] - 1.1), COARSE, width=1.8)
    board.box("mask", (12.2, TOP["s"]), FINE, width=1.8)
    board.arrow("u, 1/4", "evidence maps", COARSE)
    board.arrow("evidence maps", "diagnosis", COARSE)
    board.arrow("d, 1/4", "mask", FINE)
    draw_prompts(board)
    axes.text(12.3, 5.1, "rule-out:\nno lesion,\nno mask", fontsize=8, color=INK, va="center")
    return figure


def main(path: Path) -> None:
    """Write the picture; the same script gives the same file."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dxseg"}):
        draw().savefig(path, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg"))
