"""Write the tables of docs/results*.md from the committed results of experiments.

    python benchmarks/make_results.py
    python benchmarks/make_results.py --check

An experiment is a folder `results/NAME` with experiment.yaml, results.csv, curves.csv,
differences.csv, masks_saved.csv and retraining.csv, copied from the output of `dxseg experiment`,
with decisions.csv and against.csv if benchmarks/decisions.py and against.py were run. Its tables
are written into one of the pages between the lines `<!-- begin NAME -->` and `<!-- end NAME -->`;
the text around them is kept. A folder with curve.csv is a simulation of benchmarks/suggest.py
instead. Between lines for a folder with neither is "Not run yet." Between the lines for `summary`
is the table for readers in a hurry, and between those for `shared-classifier` what the decision
rules give by themselves, of `HEADLINE`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.experiments.experiment import parse_experiment, read_experiment_text
from dxseg.experiments.retraining import COLUMNS
from dxseg.experiments.tables import make_tables
from dxseg.io.atomic import write_text_atomic
from dxseg.reports.metric_columns import VOLUME_METRICS
from dxseg.reports.tables import to_markdown

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
PAGES = sorted((ROOT / "docs").glob("results*.md"))
SUMMARY = "summary"
HEADLINE = {
    "lidc-again": "windows of lung CT (LIDC), 5 folds",
    "busi-again": "breast ultrasound (BUSI), 3 folds",
}
"""Experiments of the summary, and their names there."""
SHARED, AS_USED = "shared-classifier", "rule_out_rule_in"
EQUAL_RULE = "label_prompt"
"""The rule of decisions.csv that is the same for every method: the diagnosis is known."""
METHODS = {
    "unet": "a U-Net: masks only",
    "unet-stage1-selftrained": "masks and labels, one branch",
    "sks-selftrained": "masks and labels, two branches",
    "unet-stage1-student": "a student of this one branch",
    "sks-student": "a student of these two branches",
}
PRIMARY, ONE_BRANCH = "sks-selftrained", "unet-stage1-selftrained"
"""The method that decisions.csv subtracts the others from, and the same with one branch."""
NOT_MEASURED = "–"
NOT_RUN = "Not run yet.\n"
AT_RATE, AT_SENSITIVITY = "fpr_", "sensitivity_"
"""Prefixes of the rules of benchmarks/decisions.py by which all methods have the same rate."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="only check whether the page is in sync"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the experiments")
    parser.add_argument("--page", type=Path, nargs="+", default=PAGES, help="pages to write into")
    args = parser.parse_args(arguments)
    before = {page: page.read_text(encoding="utf-8") for page in args.page}
    after = dict(zip(before, fill(list(before.values()), args.results), strict=True))
    changed = [page for page in before if after[page] != before[page]]
    if args.check and changed:
        names = ", ".join(page.name for page in changed)
        raise SystemExit(f"{names}: not in sync; run benchmarks/make_results.py")
    for page in changed:
        write_text_atomic(page, after[page])


def fill(pages: list[str], results: Path) -> list[str]:
    """Write the tables of each experiment between its markers; missing markers are an error."""
    kinds = {"results.csv": tables_of, "curve.csv": curve_of}
    tables = {
        path.parent.name: make(path.parent)
        for name, make in kinds.items()
        for path in results.glob(f"*/{name}")
    }
    if all((results / name / "decisions.csv").is_file() for name in HEADLINE):
        tables |= {SUMMARY: summary_of(results), SHARED: shared_classifier_of(results)}
    marked = [name for text in pages for name in _marked(text)]
    if len(set(marked)) < len(marked) or set(tables) - set(marked):
        raise SystemExit(
            f"marked in the pages: {sorted(marked)}; experiments: {sorted(tables)}; each "
            "experiment needs one pair of lines <!-- begin NAME --> and <!-- end NAME -->"
        )
    return [_fill_page(text, tables) for text in pages]


def _marked(text: str) -> list[str]:
    return re.findall(r"^<!-- begin (\S+) -->$", text, re.MULTILINE)


def _fill_page(text: str, tables: dict[str, str]) -> str:
    for experiment in _marked(text):
        begin, end = (f"<!-- {word} {experiment} -->" for word in ("begin", "end"))
        head, rest = text.split(f"{begin}\n", 1)
        if f"{end}\n" not in rest:
            raise SystemExit(f"the line {end} is missing after {begin}")
        tail = rest.split(f"{end}\n", 1)[1]
        text = f"{head}{begin}\n\n{tables.get(experiment, NOT_RUN)}\n{end}\n{tail}"
    return text


def summary_of(results: Path) -> str:
    """Make the table for readers in a hurry: Dice under one rule, and what the intervals say."""
    found = equal_rules(results)
    lines = _head("Dice on lesion images, 35 masks")
    for method, title in METHODS.items():
        cells = [_dice(found[name], method) for name in HEADLINE]
        lines.append(f"| {title} (`{method}`) | " + " | ".join(cells) + " |")
    lines += ["", "What the 95% intervals say of the differences:", "", *_head("difference")]
    gains = [(method, "unet", method, "gain") for method in METHODS if method != "unet"]
    for one, other, row, name in (*gains, (PRIMARY, ONE_BRANCH, ONE_BRANCH, "difference")):
        cells = [
            _difference(table.loc[row], name) if row in table.index else NOT_MEASURED
            for table in found.values()
        ]
        lines.append(f"| `{one}` minus `{other}` | " + " | ".join(cells) + " |")
    note = (
        "The intervals are over patients or groups of near-duplicates. They do not include the "
        "noise of\ntraining, by which a method moved up to 0.02 when it was trained again."
    )
    return "\n".join([*lines, "", note]) + "\n"


def shared_classifier_of(results: Path) -> str:
    """Make the table of Dice as used, before and after every method decides by one classifier."""
    lines = _head("method")
    before, after = (_rows_of(results, rule) for rule in (AS_USED, SHARED.replace("-", "_")))
    for method in before[0].index.intersection(after[0].index, sort=False):
        cells = [
            f"{_dice(old, method)} → {_dice(new, method)}" if method in new.index else NOT_MEASURED
            for old, new in zip(before, after, strict=True)
        ]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    for method in ("unet", "unet-stage1", ONE_BRANCH):
        cells = [
            f"{old.loc[method, 'difference']:+.3f} → {_difference(new.loc[method])}"
            for old, new in zip(before, after, strict=True)
        ]
        lines.append(f"| `{PRIMARY}` minus `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _head(title: str) -> list[str]:
    """The first two lines of a table with a column for each experiment of `HEADLINE`."""
    return [
        f"| {title} | " + " | ".join(HEADLINE.values()) + " |",
        "|---" * (len(HEADLINE) + 1) + "|",
    ]


def _rows_of(results: Path, rule: str) -> list[pd.DataFrame]:
    tables = (pd.read_csv(results / name / "decisions.csv") for name in HEADLINE)
    return [table[table["rule"] == rule].set_index("method") for table in tables]


def equal_rules(results: Path) -> dict[str, pd.DataFrame]:
    """Of each experiment of the summary, the rows of `EQUAL_RULE` by method."""
    return dict(zip(HEADLINE, _rows_of(results, EQUAL_RULE), strict=True))


def _dice(table: pd.DataFrame, method: str) -> str:
    return f"{table.loc[method, 'dice_lesion']:.3f}" if method in table.index else NOT_MEASURED


def _difference(row: pd.Series[Any], name: str = "difference") -> str:
    """A difference in figures and in words, which follow from its interval."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    words = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    return f"{row[name]:+.3f} ({low:+.3f} to {high:+.3f}): {words}"


def tables_of(folder: Path) -> str:
    """Make the Markdown tables of a committed experiment."""
    path = folder / "experiment.yaml"
    experiment = parse_experiment(read_experiment_text(path), str(path))
    names = ("results", "curves", "differences", "masks_saved")
    results, curves, differences, saved = (read(folder / f"{name}.csv") for name in names)
    path = folder / "retraining.csv"  # which results of earlier versions do not have
    retraining = read(path) if path.is_file() else pd.DataFrame(columns=list(COLUMNS))
    text = to_markdown(make_tables(experiment, results, curves, differences, saved, retraining))
    further = {"decisions.csv": decisions_of, "against.csv": against_of}
    return text + "".join(
        make(folder / name) for name, make in further.items() if (folder / name).is_file()
    )


def against_of(path: Path) -> str:
    """Make the table of benchmarks/against.py."""
    table = pd.read_csv(path)
    columns = [one for one in VOLUME_METRICS if one.key in set(table["metric"])]
    lines = [
        *("", "Each method, and minus itself in the other experiment, paired by volume:", ""),
        "| method | budget | test volumes | " + " | ".join(one.title for one in columns) + " |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for (method, masks), rows in table.groupby(["method", "masks"], sort=False):
        found = rows.set_index("metric")
        cells = [_against_cell(found.loc[one.key], one.decimals) for one in columns]
        lines.append(
            f"| {method} | {masks} | {found['volumes'].max()} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def _against_cell(row: pd.Series[Any], decimals: int) -> str:
    names = ("difference", "low", "high")
    difference, low, high = (f"{row[name]:+.{decimals}f}" for name in names)
    return f"{row['value']:.{decimals}f}; {difference} ({low} to {high})"


def decisions_of(path: Path) -> str:
    """Make the tables of benchmarks/decisions.py."""
    table = pd.read_csv(path)
    lines = _by_fraction(
        table,
        AT_RATE,
        "Dice on lesion images at the same false-positive rate (fraction of the lesion-free images "
        "with a mask); primary method minus this method, with 95% interval:",
        _at_rate,
    )
    lines += _by_fraction(
        table,
        AT_SENSITIVITY,
        "Lesion-free images with a mask and false-positive area, where at least this fraction of "
        "the lesion images gets a mask:",
        _at_sensitivity,
    )
    lines += [
        "",
        "Effect of the decision rules; `rule_out_rule_in` is what `dxseg predict` does, "
        "`label_prompt` the same with the true label of each image:",
        "",
        "| method | rule | Dice, lesion images | Dice, all images | lesion-free images with a "
        "mask | false-positive area | lesion images without a mask |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table[~table["rule"].str.match(f"{AT_RATE}|{AT_SENSITIVITY}")].to_dict("records"):
        rate, lost = (
            f"{100 * row[key]:.1f}%" for key in ("false_positive_rate", "lesions_without_mask")
        )
        lines.append(
            f"| {row['method']} | {row['rule']} | {row['dice_lesion']:.3f} | "
            f"{row['dice_all']:.3f} | {rate} | {100 * row['false_positive_area']:.2f}% | {lost} |"
        )
    return "\n".join(lines) + "\n"


def _by_fraction(
    table: pd.DataFrame, kind: str, caption: str, cell: Callable[[pd.Series[Any]], str]
) -> list[str]:
    """One row per method, one column per fraction; nothing from older tables without such rules."""
    rules = [rule for rule in table["rule"].unique() if rule.startswith(kind)]
    if not rules:
        return []
    percents = [f"{100 * float(rule.removeprefix(kind)):g}%" for rule in rules]
    lines = [
        *("", caption, ""),
        "| method | " + " | ".join(percents) + " |",
        "|---|" + "---|" * len(rules),
    ]
    for method, rows in table.groupby("method", sort=False):
        cells = [cell(rows[rows["rule"] == rule].iloc[0]) for rule in rules]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def _at_sensitivity(row: pd.Series[Any]) -> str:
    return f"{100 * row['false_positive_rate']:.0f}%; {100 * row['false_positive_area']:.2f}%"


def _at_rate(row: pd.Series[Any]) -> str:
    cell = f"{row['dice_lesion']:.3f}"
    if pd.notna(row["difference"]):
        low, high = row["difference_low"], row["difference_high"]
        cell += f"; {row['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
    return cell


def curve_of(folder: Path) -> str:
    """Make the Markdown table of a simulation's learning curve."""
    curve = pd.read_csv(folder / "curve.csv")
    lines = [
        "| masks | chosen by | Dice, lesion images | minus random | Dice, all images | "
        "lesion-free images with a mask |",
        "|---|---|---|---|---|---|",
    ]
    for row in curve.to_dict("records"):
        figures = ("dice_lesion", "dice_all", "false_positive_rate")
        spread = [f"{row[name]:.3f} ± {row[f'{name}_sd']:.3f}" for name in figures]
        gain = ""
        if pd.notna(row["difference"]):
            gain = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        cells = [str(row["masks"]), str(row["strategy"]), spread[0], gain, *spread[1:]]
        lines.append("| " + " | ".join(cells) + " |")
    seeds = curve["seeds"].min()
    note = (
        f"Mean ± standard deviation over {seeds} seeds; differences with 95% intervals by paired "
        "bootstrap over groups, each case averaged over seeds."
    )
    return "\n".join([*lines, "", note]) + "\n"


def read(path: Path) -> pd.DataFrame:
    """Read a table with its types: budgets as int or "all", missing text as ""."""
    texts = ["masks", "against_masks", "error"]
    if path.name == "retraining.csv":
        texts += ["against"]
    if path.name == "masks_saved.csv":
        texts += ["equal_at", "low", "high"]
    table = pd.read_csv(path, dtype=dict.fromkeys(texts, str))
    for column in table.columns.intersection(texts):
        table[column] = table[column].fillna("")
        if column.endswith("masks"):
            table[column] = [text if text == "all" else int(text) for text in table[column]]
    return table


if __name__ == "__main__":
    main()
