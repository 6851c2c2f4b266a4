"""Importing by the command line: what it prints, what it writes, how it fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cli_results import assert_fails

Cli = Callable[..., Any]


def picture(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((40, 50), value, np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def region(path: Path, top: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((40, 50), np.uint8)
    pixels[top : top + 8, 5:20] = 255
    Image.fromarray(pixels).save(path)
    return path


def busi_like(root: Path) -> Path:
    for label in ("benign", "malignant", "normal"):
        for number in (1, 2):
            stem = root / label / f"{label} ({number})"
            picture(stem.with_name(f"{stem.name}.png"))
            region(stem.with_name(f"{stem.name}_mask.png"), 5)
    region(root / "benign" / "benign (2)_mask_1.png", 25)
    return root


def table_of(dataset: Path) -> pd.DataFrame:
    return pd.read_csv(dataset / "cases.csv", dtype=str, keep_default_na=False)


def test_import_busi_unites_masks_and_says_so(cli: Cli, tmp_path: Path) -> None:
    result = cli("import", "busi", busi_like(tmp_path / "[raw]"), tmp_path / "busi")
    assert result.exit_code == 0, result.output
    assert "benign (2)" in result.stdout
    assert f"Dataset: {tmp_path / 'busi'}" in result.stdout
    table = table_of(tmp_path / "busi")
    assert table["label"].value_counts().to_dict() == {"benign": 2, "malignant": 2, "normal": 2}
    mask = tmp_path / "busi" / table.loc[table["image"].eq("benign/benign (2).png"), "mask"].item()
    assert np.asarray(Image.open(mask)).astype(bool).sum() == 2 * 8 * 15


def test_import_refuses_a_used_folder_unless_told(cli: Cli, tmp_path: Path) -> None:
    source = busi_like(tmp_path / "raw")
    (tmp_path / "busi").mkdir()
    (tmp_path / "busi" / "notes.txt").write_text("mine")
    assert_fails(cli("import", "busi", source, tmp_path / "busi"), 1, str(tmp_path / "busi"))
    assert cli("import", "busi", source, tmp_path / "new").exit_code == 0
    assert_fails(cli("import", "busi", source, tmp_path / "new"), 1, str(tmp_path / "new"))
    assert cli("import", "busi", source, tmp_path / "new", "--overwrite").exit_code == 0


def test_import_busi_of_another_folder(cli: Cli, tmp_path: Path) -> None:
    result = cli("import", "busi", tmp_path, tmp_path / "busi")
    assert_fails(result, 1, "benign, malignant, normal")


def test_import_folder(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "skin"
    picture(source / "naevus" / "a.png")
    picture(source / "melanoma" / "b.png")
    picture(source / "clear" / "c.png")
    region(tmp_path / "outlines" / "melanoma" / "b_segmentation.png", 5)
    options = ["--lesion-free", "clear", "--masks-root", tmp_path / "outlines"]
    options += ["--mask-suffix", "_segmentation", "--name", "skin"]
    result = cli("import", "folder", source, tmp_path / "dataset", *options)
    assert result.exit_code == 0, result.output
    table = table_of(tmp_path / "dataset").set_index("label")
    assert table.loc["melanoma", "mask"] == "outlines/melanoma/b_segmentation.png"
    assert table.loc["naevus", "mask"] == table.loc["clear", "mask"] == ""


def test_import_csv(cli: Cli, tmp_path: Path) -> None:
    picture(tmp_path / "files" / "1.png")
    picture(tmp_path / "files" / "2.png")
    region(tmp_path / "files" / "2_m.png", 5)
    (tmp_path / "list.csv").write_text(
        "file;seg;diagnosis;who\n1.png;;none;A\n2.png;2_m.png;cyst;B\n"
    )
    words = ["import", "csv", tmp_path / "list.csv", tmp_path / "dataset"]
    words += ["--images-root", tmp_path / "files", "--lesion-free", "none"]
    for pair in ("image=file", "mask=seg", "label=diagnosis", "patient_id=who"):
        words += ["--column", pair]
    result = cli(*words)
    assert result.exit_code == 0, result.output
    table = table_of(tmp_path / "dataset")
    assert table[["image", "mask", "label", "patient_id"]].to_numpy().tolist() == [
        ["1.png", "", "none", "A"],
        ["2.png", "2_m.png", "cyst", "B"],
    ]
    described = cli("info", tmp_path / "dataset")
    assert described.exit_code == 0
    assert re.search(r"patients\W+2\b", described.stdout)


@pytest.mark.parametrize(
    ("pair", "code", "expected"),
    [
        ("image", 2, "FIELD=COLUMN"),
        ("image=", 2, "FIELD=COLUMN"),
        ("image=missing", 1, "no column 'missing'"),
        ("picture=file", 1, "unknown: picture"),
    ],
)
def test_import_csv_with_a_wrong_mapping(
    cli: Cli, tmp_path: Path, pair: str, code: int, expected: str
) -> None:
    (tmp_path / "list.csv").write_text("file\n1.png\n")
    result = cli("import", "csv", tmp_path / "list.csv", tmp_path / "dataset", "--column", pair)
    assert_fails(result, code, expected)


def test_a_wrong_table_names_row_column_value_and_remedy(cli: Cli, tmp_path: Path) -> None:
    busi_like(tmp_path / "raw")
    cli("import", "busi", tmp_path / "raw", tmp_path / "busi")
    table = tmp_path / "busi" / "cases.csv"
    table.write_text(table.read_text().replace(",malignant,", ",malignent,", 1))
    result = cli("split", tmp_path / "busi", "--out", tmp_path / "splits.csv")
    assert_fails(result, 1, "cases.csv: 1 wrong value(s)")
    assert "row 4, column label, value 'malignent'" in result.stderr
    assert "add it to labels in dataset.yaml" in result.stderr
