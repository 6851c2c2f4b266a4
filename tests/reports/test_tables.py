"""Tables as Markdown and LaTeX: no text breaks them."""

from __future__ import annotations

import pytest

from dxseg.reports.tables import Cell, Table, escape_latex, to_latex, to_markdown


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b & 50% #1 $x$", r"a\_b \& 50\% \#1 \$x\$"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        (">140", r"\textgreater{}140"),
        ("0.5", "0.5"),
    ],
)
def test_latex_is_escaped(text: str, escaped: str) -> None:
    assert escape_latex(text) == escaped


def test_a_table_in_latex_and_markdown() -> None:
    table = Table(
        "T_1", ("method", "D|ce"), [[Cell("a&b"), Cell("0.5", "0.4 to 0.6", True)]], "50%"
    )
    tex = to_latex([table])
    assert r"a\&b & \textbf{0.5} {\scriptsize (0.4 to 0.6)} \\" in tex
    assert r"\caption{T\_1. 50\%}" in tex
    assert [tex.count(rf"\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]
    assert to_markdown([table]).splitlines() == [
        "**T_1**",
        "",
        "| method | D\\|ce |",
        "|---|---|",
        "| a&amp;b | **0.5** (0.4 to 0.6) |",
        "",
        "50%",
    ]
