"""Make a dataset of your own arrays: every image has a diagnosis, every fourth a mask; check it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from PIL import Image

import dxseg
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.phantoms.ultrasound import label_of, make_phantom


def main(folder: Path = Path("example-runs/own"), *, images: int = 40, size: int = 128) -> Dataset:
    """Write images, masks, `cases.csv` and `dataset.yaml`; gives the dataset."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(1, images + 1):
        label = label_of(number)
        pixels, lesion = make_phantom(label, size=size, seed=(0, number))
        row = {"case_id": f"scan-{number}", "image": f"images/{number}.png", "mask": ""}
        Image.fromarray(pixels).save(folder / row["image"])
        if number % 4 == 0 and lesion.any():
            row["mask"] = f"masks/{number}.png"
            Image.fromarray(lesion * 255).save(folder / row["mask"])
        # Two images of each patient: they stay on one side of every split.
        rows.append(row | {"label": label, "patient_id": f"P{number // 2}"})
    spec = DatasetSpec(name="own", labels=["normal", "benign", "malignant"], lesion_free=["normal"])
    return Dataset.create(folder, spec, pd.DataFrame(rows))


if __name__ == "__main__":
    dataset = main()
    print(dxseg.info(dataset.root))
    report = dxseg.check(dataset.root)
    for finding in report.findings:
        print(f"{finding.severity} {finding.code}: {finding.count}")
