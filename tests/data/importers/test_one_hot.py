"""One-hot tables of ISIC and CheXpert, from the command line and from Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cli_results import call
from dxseg.commands.import_csv import import_csv
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError

ISIC = """image,MEL,NV,UNK,age
a,1.0,0.0,0.0,50
b,0.0,1.0,0.0,1
c,0.0,0.0,1.0,0
"""
CHEXPERT = """Path,Sex,No Finding,Edema,Fracture
a.png,F,1.0,,
b.png,M,,1.0,0.0
c.png,F,,1.0,-1.0
d.png,F,,,
e.png,F,0.0,1.0,1.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    for name in "abcde":
        Image.new("L", (9, 8), ord(name)).save(root / f"{name}.png")
    return root


def write(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_option_alone_finds_the_columns_of_isic(folder: Path, tmp_path: Path) -> None:
    csv = write(folder, ISIC)
    arguments = ["import", "csv", csv, tmp_path / "out", "--column", "image=image", "--one-hot"]
    result = call(*map(str, arguments))
    assert result.exit_code == 0
    assert "columns read as labels: MEL, NV, UNK" in result.stdout
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.labels == ["MEL", "NV"]
    assert not dataset.spec.multi_label
    assert dataset.cases["label"].tolist() == ["MEL", "NV", ""]


def test_columns_may_be_named(folder: Path, tmp_path: Path) -> None:
    csv = write(folder, ISIC)
    named = ["--one-hot", "NV", "MEL", "--name", "isic"]
    arguments = ["import", "csv", csv, tmp_path / "out", "--column", "image=image", *named]
    assert call(*map(str, arguments)).exit_code == 0
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.name == "isic"
    assert dataset.cases["label"].tolist() == ["MEL", "NV", ""]


def test_uncertain_labels_of_chexpert_are_unknown(folder: Path, tmp_path: Path) -> None:
    report = import_csv(
        write(folder, CHEXPERT),
        tmp_path / "out",
        columns={"image": "Path"},
        one_hot=[],
        lesion_free=["No Finding"],
    )
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.multi_label
    assert dataset.spec.labels == ["Edema", "Fracture", "No Finding"]
    assert dataset.cases["label"].tolist() == ["No Finding", "Edema", "", "", "Edema;Fracture"]
    text = str(report)
    assert "1 rows have an uncertain label (-1)" in text
    assert "1 rows have no label (no 1)" in text
    assert "3 empty cells beside a label read as absent" in text


@pytest.mark.parametrize(
    ("one_hot", "words"),
    [
        (["MEL", "BCC"], "no column 'BCC'.*correct --one-hot"),
        (["MEL", "age"], "row 2, column age, value '50': expected 1"),
    ],
)
def test_wrong_columns_are_named(
    folder: Path, tmp_path: Path, one_hot: list[str], words: str
) -> None:
    with pytest.raises(DxsegError, match=words):
        import_csv(
            write(folder, ISIC), tmp_path / "out", columns={"image": "image"}, one_hot=one_hot
        )
    columns = {"image": "image", "label": "NV"}
    with pytest.raises(UsageError, match="from one of them"):
        import_csv(write(folder, ISIC), tmp_path / "out", columns=columns, one_hot=[])
    csv = write(folder, "image,age\na,50\n")
    with pytest.raises(DxsegError, match="no column holds only 0"):
        import_csv(csv, tmp_path / "out", columns={"image": "image"}, one_hot=[])
