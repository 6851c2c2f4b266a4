"""Is the demo's lead chance? The demo with ten seeds: other phantoms, masks and weights each time.

python benchmarks/demo_seeds.py OUT [--seeds 10]

The same command goes on after an interruption. One row per seed: Dice on lesion images of the
method and of masks only, their difference with its interval, and the difference if both are told
the diagnosis of each image. Kept in results/demo/seeds.csv, and as a table in
docs/explanation/phantoms.md.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.commands.demo import METHODS, DemoResult, demo
from dxseg.io.atomic import write_text_atomic

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "results" / "demo" / "seeds.csv"
PAGE = ROOT / "docs" / "explanation" / "phantoms.md"
BEGIN, END = "<!-- seeds: written by benchmarks/demo_seeds.py -->", "<!-- end of seeds -->"


def row_of(seed: int, result: DemoResult) -> dict[str, Any]:
    dice = result.comparison.methods.set_index("method")["dice_lesion"]
    row: dict[str, Any] = {"seed": seed} | {name: dice[name] for name in METHODS}
    differences = result.comparison.differences.set_index("metric")
    for metric, prefix in (("dice_lesion", ""), ("dice_lesion_known", "known_")):
        for column in ("difference", "low", "high"):
            row[prefix + column] = differences.loc[metric, column]
    return row


def page_with(page: str, table: pd.DataFrame) -> str:
    """The page with the table as Markdown between its markers, and how often the method leads."""
    method, control = table.columns[1:3]
    lines = [
        f"| seed | `{method}` | `{control}` | difference | with the diagnosis known |",
        "|---|---|---|---|---|",
    ]
    for row in table.to_dict("records"):
        plain, known = (
            f"{row[f'{prefix}difference']:+.3f} ({row[f'{prefix}low']:+.3f} to "
            f"{row[f'{prefix}high']:+.3f})"
            for prefix in ("", "known_")
        )
        lines.append(
            f"| {row['seed']} | {row[method]:.3f} | {row[control]:.3f} | {plain} | {known} |"
        )
    ahead, known_ahead = (int((table[name] > 0).sum()) for name in ("low", "known_low"))
    lines += [
        "",
        f"The interval is above 0 for {ahead} of {len(table)} seeds, and with the diagnosis "
        f"known for {known_ahead}.",
    ]
    text = "\n".join(lines)
    return re.sub(f"{BEGIN}.*{END}", f"{BEGIN}\n\n{text}\n\n{END}", page, flags=re.DOTALL)


def main(folder: Path, seeds: int) -> None:
    rows: list[dict[str, Any]] = []
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        rows.append(row_of(seed, demo(output=folder / f"seed-{seed}", seed=seed)))
        table = pd.DataFrame(rows).round(4)
        write_text_atomic(TABLE, table.to_csv(index=False))
        write_text_atomic(PAGE, page_with(PAGE.read_text(encoding="utf-8"), table))
        print(" ".join(f"{name} {value:.3g}" for name, value in rows[-1].items()), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The demo with several seeds.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    main(given.folder, given.seeds)
