"""Exported raw datasets hold our split and our masks, and nnU-Net itself accepts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

import dxseg
from dxseg import export_nnunet
from dxseg.commands.import_nnunet import import_nnunet
from dxseg.data.readers.images import read_image
from dxseg.data.readers.masks import read_mask
from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.errors import DxsegError, UsageError
from progress_calls import on_progress

NAME = "Dataset042_Phantoms"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def splits(phantoms: Path, tmp_path: Path) -> Path:
    """Six training masks of the phantoms, one validation mask."""
    dxseg.split(phantoms, output=tmp_path / "splits.csv", masks=6, validation_masks=1)
    return tmp_path / "splits.csv"


@pytest.fixture
def exported(phantoms: Path, splits: Path, tmp_path: Path) -> Path:
    dxseg.export_nnunet(phantoms, tmp_path / NAME, splits=splits)
    return tmp_path / NAME


def test_the_same_cases_train_validate_and_test(
    phantoms: Path, splits: Path, exported: Path
) -> None:
    table = read_splits(splits, Dataset.load(phantoms))
    usable = table[table["use_mask"]]
    expected = {part: set(rows["case_id"]) for part, rows in usable.groupby("split")}
    [fold] = json.loads((exported / "splits_final.json").read_text())
    assert set(fold) == {"train", "val"}
    assert set(fold["train"]) == expected["train"]
    assert set(fold["val"]) == expected["validation"]
    fitted = expected["train"] | expected["validation"]
    assert names(exported / "imagesTr") == {f"{case}_0000.png" for case in fitted}
    assert names(exported / "labelsTr") == {f"{case}.png" for case in fitted}
    test = set(table["case_id"][table["split"] == "test"])
    assert names(exported / "imagesTs") == {f"{case}_0000.png" for case in test}
    assert names(exported / "labelsTs") == {f"{case}.png" for case in test}
    description = json.loads((exported / "dataset.json").read_text())
    assert description["numTraining"] == len(fitted)
    assert description["labels"] == {"background": 0, "lesion": 1}
    assert description["file_ending"] == ".png"
    assert list(description["channel_names"]) == ["0"]
    left = {"dataset.json", "splits_final.json", "imagesTr", "labelsTr", "imagesTs", "labelsTs"}
    assert names(exported) == left


def test_hidden_masks_stay_hidden(phantoms: Path, splits: Path, exported: Path) -> None:
    dataset = Dataset.load(phantoms)
    table = read_splits(splits, dataset)
    hidden = table["case_id"][dataset.has_mask & ~table["use_mask"]]
    assert len(hidden)
    assert all(not list(exported.rglob(f"{case}*")) for case in hidden)


def test_pixels_come_back_through_our_own_importer(
    phantoms: Path, exported: Path, tmp_path: Path
) -> None:
    import_nnunet(exported, tmp_path / "back")
    before, after = Dataset.load(phantoms), Dataset.load(tmp_path / "back")
    rows = before.cases.set_index("case_id", drop=False)
    assert len(after) > 10
    for row in after.cases.itertuples():
        old = rows.loc[row.case_id]
        image = read_image(before.image_path(old))
        np.testing.assert_array_equal(read_image(after.image_path(row)), image)
        path, own = after.mask_path(row), before.mask_path(old)
        assert path is not None
        assert np.asarray(Image.open(path)).max() <= 1, "label maps, not 0 and 255"
        expected = np.zeros(image.shape[:2]) if own is None else read_mask(own, 1)
        np.testing.assert_array_equal(read_mask(path, 1), expected)


def make_dataset(root: Path, channels: int, dtype: str) -> Path:
    """Six images of several channels with masks of two classes; the last has a diagnosis only."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(6):
        pixels = rng.integers(0, np.iinfo(dtype).max, (12, 10, channels)).astype(dtype)
        root.mkdir(exist_ok=True)
        layout: dict[str, Any] = {"planarconfig": "contig"} if channels > 1 else {}
        tifffile.imwrite(root / f"{number}.tif", pixels, photometric="minisblack", **layout)
        Image.fromarray(rng.integers(0, 3, (12, 10), dtype=np.uint8)).save(root / f"m{number}.png")
        split = ["train", "validation", "test"][number % 3]
        mask = f"m{number}.png" if number < 5 else ""
        rows.append((f"c {number}", f"{number}.tif", mask, "benign", split))
    cases = pd.DataFrame(rows, columns=["case_id", "image", "mask", "label", "split"])
    spec = DatasetSpec(
        name="d", labels=["benign"], mask_classes=["organ", "lesion"], channels=channels
    )
    return Dataset.create(root, spec, cases).root


@pytest.mark.parametrize(("channels", "dtype"), [(2, "uint16"), (3, "uint8"), (5, "uint8")])
def test_channels_are_split_and_classes_kept(tmp_path: Path, channels: int, dtype: str) -> None:
    root = make_dataset(tmp_path / "data", channels, dtype)
    dxseg.split(root, output=tmp_path / "splits.csv")
    report = export_nnunet(root, tmp_path / NAME, splits=tmp_path / "splits.csv")
    assert (report.training, report.validation, report.test, report.test_masks) == (2, 2, 2, 1)
    pixels = read_image(root / "0.tif")
    for channel in range(channels):
        read = np.asarray(Image.open(tmp_path / NAME / f"imagesTr/c 0_{channel:04d}.png"))
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, pixels[:, :, channel])
    labels = json.loads((tmp_path / NAME / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "organ": 1, "lesion": 2}
    assert names(tmp_path / NAME / "labelsTs") == {"c 2.png"}


@pytest.mark.parametrize(
    "name", ["out", "Dataset42_x", "Dataset042_", "Dataset042_a b", "dataset042_x"]
)
def test_the_folder_must_be_named_as_nnunet_wants(
    phantoms: Path, splits: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="Dataset042_Lesions"):
        export_nnunet(phantoms, tmp_path / name, splits=splits)
    assert not (tmp_path / name).exists()


def test_a_folder_that_is_not_empty_is_left_alone(
    phantoms: Path, splits: Path, exported: Path
) -> None:
    before = {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    with pytest.raises(DxsegError, match="not empty"):
        export_nnunet(phantoms, exported, splits=splits)
    assert {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()} == before


def test_an_interrupted_export_is_none_and_starts_again(
    phantoms: Path, splits: Path, exported: Path, tmp_path: Path
) -> None:
    target = tmp_path / "again" / NAME

    def interrupt(done: int, total: int) -> None:
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), on_progress(interrupt):
        export_nnunet(phantoms, target, splits=splits)
    assert not (target / "dataset.json").exists()
    (target / "imagesTr" / "stale_0000.png").touch()
    export_nnunet(phantoms, target, splits=splits)
    assert {path.relative_to(target) for path in target.rglob("*")} == {
        path.relative_to(exported) for path in exported.rglob("*")
    }


def test_what_nnunet_would_stumble_over_is_refused(
    phantoms: Path, splits: Path, tmp_path: Path
) -> None:
    dxseg.split(phantoms, output=tmp_path / "none.csv")
    table = pd.read_csv(tmp_path / "none.csv", dtype=str, na_filter=False)
    table["use_mask"] = table["split"].ne("validation").astype(str)
    table.to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(DxsegError, match="no validation case"):
        export_nnunet(phantoms, tmp_path / NAME, splits=tmp_path / "none.csv")
    root = make_dataset(tmp_path / "data", 1, "uint8")
    spec = (root / "dataset.yaml").read_text()
    (root / "dataset.yaml").write_text(spec.replace("- organ", "- ignore"))
    dxseg.split(root, output=tmp_path / "splits.csv")
    with pytest.raises(DxsegError, match="'ignore'"):
        export_nnunet(root, tmp_path / NAME, splits=tmp_path / "splits.csv")
    assert not (tmp_path / NAME).exists()


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "data", 1, "uint8")
    Image.new("L", (4, 4)).save(root / "m3.png")
    dxseg.split(root, output=tmp_path / "splits.csv")
    with pytest.raises(DxsegError, match=r"m3\.png: 4 x 4 pixels.*'c 3' has 12 x 10"):
        export_nnunet(root, tmp_path / NAME, splits=tmp_path / "splits.csv")


def test_the_command_says_what_is_where(
    phantoms: Path, splits: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    result = cli("export", "nnunet", phantoms, tmp_path / NAME, "--splits", splits)
    assert result.exit_code == 0, result.output
    [fold] = json.loads((tmp_path / NAME / "splits_final.json").read_text())
    assert f"{len(fold['train'])} training and {len(fold['val'])} validation" in result.output
    assert cli("export", "nnunet", phantoms, tmp_path / "x", "--splits", splits).exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_nnunets_own_integrity_check_accepts_it(tmp_path: Path, channels: int) -> None:
    verify = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity")
    root = make_dataset(tmp_path / "data", channels, "uint8")
    dxseg.split(root, output=tmp_path / "splits.csv")
    target = tmp_path / NAME
    export_nnunet(root, target, splits=tmp_path / "splits.csv")
    verify.verify_dataset_integrity(str(target), num_processes=1)
    # It does look: a value that is no class must fail.
    Image.fromarray(np.full((12, 10), 7, np.uint8)).save(target / "labelsTr" / "c 0.png")
    with pytest.raises(RuntimeError, match="unexpected labels"):
        verify.verify_dataset_integrity(str(target), num_processes=1)
