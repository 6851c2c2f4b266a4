"""Compare `dxseg suggest` with random selection, on a dataset whose masks are known.

    python benchmarks/suggest.py runs/busi/dataset --out runs/suggest

For every seed a split is made and all but a few training masks are hidden. In each round a strategy
selects cases, their masks are revealed, and the same method is trained again and evaluated on the
test images: same split, first masks, stage 1, seed and steps for all strategies. An interrupted
call can be repeated: finished runs are kept. Writes curve.csv (means over seeds, and differences
from `random` with 95% intervals by paired bootstrap over groups) and runs.csv (every run).

`random` selects at most one case per group, as `suggest` does; `score` selects the highest scores,
`diverse` uses distances in feature space only: each is one half of `suggest`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

import dxseg
from dxseg.active_learning.scores import Score
from dxseg.active_learning.suggest import rank_candidates, score_rows, select_rows
from dxseg.config.presets import load_config, merge, parse_overrides
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.inference.predictor import Predictor
from dxseg.io.atomic import write_text_atomic
from dxseg.training.run_splits import resolve_splits

STRATEGIES = ("random", "suggest", "score", "diverse")
REFERENCE = STRATEGIES[0]
START = "start"
FIGURES = ("dice_lesion", "dice_all", "false_positive_rate")
RUN_COLUMNS = ("strategy", "masks", "seed", *FIGURES)


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder of a dataset whose lesions have masks")
    parser.add_argument("--out", type=Path, default=Path("runs/suggest"))
    parser.add_argument("--start", type=int, default=15, help="masks before the first round")
    parser.add_argument("--add", type=int, default=10, help="masks that a round adds")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--strategies", nargs="+", choices=STRATEGIES, default=[REFERENCE, "suggest"]
    )
    parser.add_argument("--method", default="sks-evidence")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    args = parser.parse_args(arguments)
    if REFERENCE not in args.strategies:
        parser.error(f"--strategies needs {REFERENCE}, which the others are compared with")
    console = Console(stderr=True)
    runs: dict[tuple[str, int], list[Path]] = {}
    for seed in args.seeds:
        simulation = Simulation(args, seed, console)
        simulation.begin()
        for masks in range(
            args.start + args.add, args.start + args.rounds * args.add + 1, args.add
        ):
            for strategy in args.strategies:
                simulation.advance(strategy, masks)
        for key, run in simulation.runs.items():
            runs.setdefault(key, []).append(run)
    curve, table = curve_of(runs), pd.DataFrame(rows_of(runs), columns=list(RUN_COLUMNS))
    for name, written in (("runs", table), ("curve", curve)):
        write_text_atomic(
            args.out / f"{name}.csv",
            written.to_csv(index=False, lineterminator="\n", float_format="%.4f"),
        )
    print(curve.to_string(index=False, float_format="%.3f"))
    return curve


class Simulation:
    """One seed: a split, starting masks, and for each strategy a chain of runs.

    Attributes:
        runs: folders of evaluated runs by strategy and number of masks.
    """

    def __init__(self, args: argparse.Namespace, seed: int, console: Console) -> None:
        self.args, self.seed, self.console = args, seed, console
        self.folder: Path = args.out / f"seed-{seed}"
        self.data = Dataset.load(args.dataset)
        self.overrides = parse_overrides(args.set)
        self.runs: dict[tuple[str, int], Path] = {}

    def begin(self) -> None:
        """Split, show the starting masks, train and evaluate on them."""
        drawn = self.folder / "splits.csv"
        if not drawn.is_file():
            dxseg.split(self.args.dataset, output=drawn, split_seed=self.seed)
        step = self.folder / f"{START}-{self.args.start}"
        if not (step / "splits.csv").is_file():
            budget = {"seed": self.seed, "split": {"masks": self.args.start}}
            config = load_config("cpu", self.args.method, merge(self.overrides, budget))
            shown = resolve_splits(self.data, config, drawn)
            write_splits(step / "splits.csv", shown)
        self._run(START, self.args.start, step)

    def advance(self, strategy: str, masks: int) -> None:
        """Let a strategy add masks to those it had; train and evaluate."""
        before = masks - self.args.add
        earlier = self.runs[(strategy if before > self.args.start else START, before)]
        step = self.folder / f"{strategy}-{masks}"
        if not (step / "splits.csv").is_file():
            known = earlier.parent / "splits.csv"
            picked = self._pick(strategy, earlier, known, step / "suggestions.csv")
            if len(picked) < self.args.add:
                raise SystemExit(f"{step}: only {len(picked)} cases are left; fewer rounds?")
            shown = read_splits(known, self.data)
            shown["use_mask"] |= shown["case_id"].isin(picked)
            write_splits(step / "splits.csv", shown)
        self._run(strategy, masks, step)

    def _pick(self, strategy: str, run: Path, splits: Path, out: Path) -> list[str]:
        count = self.args.add
        if strategy == "suggest":
            options: dict[str, Any] = {"count": count, "splits": splits, "seed": self.seed}
            found = dxseg.suggest(run, self.args.dataset, output=out, **options)
            return found.table["case_id"].tolist()
        rows = select_rows(self.data, splits)
        if strategy == REFERENCE:
            rows = rows[~rows["annotated"]]
            mixed = rows.sample(frac=1, random_state=np.random.default_rng([self.seed, len(rows)]))
            return mixed.drop_duplicates("group")["case_id"].head(count).tolist()
        seen = score_rows(Predictor.from_folder(run / "model"), self.data, rows)
        if strategy == "diverse":
            alike = replace(seen, scores=[Score(1.0, 0.0)] * len(seen.scores))
            return rank_candidates(alike, count, self.seed)["case_id"].tolist()
        scores = [score.score for score in seen.scores]
        table = pd.DataFrame({"case_id": seen.case_ids, "group": seen.groups, "score": scores})
        highest = table.sort_values("score", ascending=False, kind="stable")
        return highest.drop_duplicates("group")["case_id"].head(count).tolist()

    def _run(self, strategy: str, masks: int, step: Path) -> None:
        run = step / "run"
        self.console.print(f"seed {self.seed}, {strategy}, {masks} masks")
        borrows = strategy != START and load_config("cpu", self.args.method).model.requires_stage1
        first = self.runs[(START, self.args.start)] if borrows else None
        dxseg.train(
            self.args.dataset,
            output=run,
            method=self.args.method,
            seed=self.seed,
            # Comparisons tell methods apart by their names.
            overrides=merge(self.overrides, {"method": strategy}),
            splits=step / "splits.csv",
            stage1=first,
        )
        if not (run / "evaluation.json").is_file():
            dxseg.evaluate(run)
        self.runs[strategy, masks] = run


def curve_of(runs: dict[tuple[str, int], list[Path]]) -> pd.DataFrame:
    """One row a strategy and number of masks: means over seeds, differences from random."""
    rows = []
    for masks in sorted({masks for _, masks in runs}):
        here = {strategy: paths for (strategy, number), paths in runs.items() if number == masks}
        reference = REFERENCE if REFERENCE in here else START
        comparison = dxseg.compare(
            [run for paths in here.values() for run in paths], reference=reference
        )
        tested = comparison.differences[comparison.differences["metric"] == "dice_lesion"]
        tested = tested.set_index("method")
        for method in comparison.methods.to_dict("records"):
            row = {"strategy": method["method"], "masks": masks, "seeds": method["seeds"]}
            for figure in FIGURES:
                row |= {figure: method[figure], f"{figure}_sd": method[f"{figure}_sd"]}
            for figure in ("difference", "low", "high", "p_value"):
                row[figure] = tested[figure].get(method["method"], np.nan)
            rows.append(row)
    return pd.DataFrame(rows)


def rows_of(runs: dict[tuple[str, int], list[Path]]) -> list[dict[str, Any]]:
    """One row a run."""
    rows = []
    for (strategy, masks), paths in runs.items():
        for run in paths:
            per_run = dxseg.compare([run]).summary["per_run"][0]
            figures = {figure: per_run[figure] for figure in FIGURES}
            rows.append({"strategy": strategy, "masks": masks, "seed": per_run["seed"], **figures})
    return rows


if __name__ == "__main__":
    main()
