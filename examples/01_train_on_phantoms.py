"""Train the default method on phantoms: many diagnoses, 24 masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dxseg
from dxseg.phantoms.ultrasound import make_phantoms

SHORT: dict[str, Any] = {
    "stage1": {"steps": 120},
    "stage2": {"steps": 120},
    "student": {"steps": 120},
}


def main(
    folder: Path = Path("example-runs"),
    *,
    images: int = 300,
    size: int = 128,
    masks: int = 24,
    overrides: dict[str, Any] = SHORT,
) -> dict[str, Any]:
    """Train and evaluate; gives the figures on the test images."""
    dataset = folder / "phantoms"
    if not (dataset / "dataset.yaml").exists():
        make_phantoms(dataset, images=images, size=size)
    dxseg.train(dataset, output=folder / "method", masks=masks, overrides=overrides)
    return dxseg.evaluate(folder / "method")


if __name__ == "__main__":
    figures = main()
    low, high = figures["dice_lesion_ci"]
    print(f"Dice on lesion images: {figures['dice_lesion']:.3f} ({low:.3f} to {high:.3f})")
    print(f"Healthy images with a mask: {figures['false_positive_rate']:.0%}")
