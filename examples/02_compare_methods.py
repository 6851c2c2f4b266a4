"""Compare the method with its two nearest rivals: one split, the same masks, stage 1 shared."""

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
    dxseg.split(dataset, splits, masks=masks)
    method = folder / "compared" / "sks"
    for method in ("sks", "unet-stage1", "unet"):
        dxseg.train(
            dataset,
            method.with_name(method),
            method=method,
            splits=splits,
            stage1=method if method == "unet-stage1" else None,
            overrides=overrides,
        )
        dxseg.evaluate(method.with_name(method))
    runs = sorted(path for path in method.parent.iterdir() if path.is_dir())
    return dxseg.compare(runs, reference="unet", output=folder / "comparison").markdown


if __name__ == "__main__":
    print(main())
