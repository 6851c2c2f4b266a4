"""Compare the paper's two branches with two baselines: the same split and masks, one stage 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dxseg
from dxseg.phantoms.ultrasound import make_phantoms

SHORT: dict[str, Any] = {"stage1": {"steps": 120}, "stage2": {"steps": 120}}


def main(
    folder: Path = Path("example-runs"),
    *,
    images: int = 300,
    size: int = 128,
    masks: int = 24,
    overrides: dict[str, Any] = SHORT,
) -> str:
    """Train three methods and compare them; gives the table as Markdown."""
    dataset, splits = folder / "phantoms", folder / "splits.csv"
    if not (dataset / "dataset.yaml").exists():
        make_phantoms(dataset, images=images, size=size)
    dxseg.split(dataset, output=splits, masks=masks)
    runs = {method: folder / "compared" / method for method in ("sks", "unet-stage1", "unet")}
    for method, run in runs.items():
        dxseg.train(
            dataset,
            output=run,
            method=method,
            splits=splits,
            stage1=runs["sks"] if method == "unet-stage1" else None,
            overrides=overrides,
        )
        dxseg.evaluate(run)
    return dxseg.compare(
        sorted(runs.values()), reference="unet", output=folder / "comparison"
    ).markdown


if __name__ == "__main__":
    print(main())
