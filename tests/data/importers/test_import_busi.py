"""Importing BUSI: the public layout, several masks united, everything told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxseg.commands.imports import import_busi
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from progress_calls import on_progress

LEFT = np.zeros((20, 30), dtype=np.uint8)
LEFT[5:10, 3:9] = 255
RIGHT = np.fliplr(LEFT)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A folder as BUSI's: benign 2 and 10 (two masks), malignant 1, normal 1."""
    root = tmp_path / "source"
    files = {
        "benign/benign (2)": [LEFT],
        "benign/benign (10)": [LEFT, RIGHT],
        "malignant/malignant (1)": [RIGHT],
        "normal/normal (1)": [np.zeros_like(LEFT)],
    }
    for name, masks in files.items():
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (90, 90, 90)).save(path)
        for number, mask in enumerate(masks):
            end = f"_{number}" if number else ""
            Image.fromarray(mask).save(root / f"{name}_mask{end}.png")
    return root


def test_the_public_layout(layout: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    with on_progress(lambda *step: steps.append(step)):
        report = import_busi(layout, tmp_path / "out")
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (report.images, report.masks, report.channels) == (4, 4, 1)
    assert report.labels == {"benign": 2, "malignant": 1, "normal": 1}
    assert report.merged == ["benign (10)"]
    assert report.skipped == []
    assert any("benign (10)" in line for line in report.notes)
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.cases["case_id"].tolist() == [
        "benign (2)",
        "benign (10)",
        "malignant (1)",
        "normal (1)",
    ]
    assert dataset.lesion_free.tolist() == [False, False, False, True]
    assert dataset.has_mask.all()
    rows = list(dataset.cases.itertuples())
    assert dataset.image_path(rows[1]) == (layout / "benign" / "benign (10).png").resolve()
    merged = dataset.mask_path(rows[1])
    assert merged is not None
    assert merged.parent == tmp_path / "out" / "masks"
    np.testing.assert_array_equal(read_mask(merged, 1), (LEFT | RIGHT) // 255)


def test_the_archive_may_have_its_folder_on_top(layout: Path, tmp_path: Path) -> None:
    top = tmp_path / "unpacked"
    top.mkdir()
    layout.rename(top / "Dataset_BUSI_with_GT")
    assert import_busi(top, tmp_path / "out").images == 4


def test_wrong_files_are_left_out_and_told(layout: Path, tmp_path: Path) -> None:
    (layout / "benign" / "benign (3).png").write_bytes(b"")
    (layout / "benign" / "benign (4)_mask.png").write_bytes(b"")
    (layout / "benign" / "Thumbs.db").write_bytes(b"x")
    Image.fromarray(LEFT[:10]).save(layout / "malignant" / "malignant (1)_mask.png")
    Image.fromarray(LEFT).save(layout / "normal" / "normal (1)_mask.png")
    report = import_busi(layout, tmp_path / "out")
    reasons = {Path(file).name: reason for file, reason in report.skipped}
    assert set(reasons) == {
        "benign (3).png",
        "benign (4)_mask.png",
        "Thumbs.db",
        "malignant (1)_mask.png",
        "normal (1)_mask.png",
    }
    assert "0 bytes" in reasons["benign (3).png"]
    assert "without its image" in reasons["benign (4)_mask.png"]
    assert "(10, 30)" in reasons["malignant (1)_mask.png"]
    assert "lesion-free" in reasons["normal (1)_mask.png"]
    assert (report.images, report.masks) == (4, 2)
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.has_mask.tolist() == [True, True, False, True]


def test_a_missing_class_is_named(layout: Path, tmp_path: Path) -> None:
    (layout / "normal").rename(tmp_path / "normal")
    with pytest.raises(DxsegError, match="normal are missing"):
        import_busi(layout, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_destinations_are_not_overwritten_by_accident(layout: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("x")
    with pytest.raises(DxsegError, match="not empty"):
        import_busi(layout, out, overwrite=True)
    (out / "thesis.txt").unlink()
    import_busi(layout, out)
    with pytest.raises(DxsegError, match="overwrite"):
        import_busi(layout, out)
    with pytest.raises(DxsegError, match="has the dataset 'BUSI'"):
        import_busi(layout, out, name="other", overwrite=True)
    (layout / "normal" / "normal (1).png").unlink()
    assert import_busi(layout, out, overwrite=True).images == 3
    assert len(Dataset.load(out)) == 3


def test_an_interrupted_import_is_no_dataset_and_starts_again(layout: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with on_progress(interrupt), pytest.raises(KeyboardInterrupt):
        import_busi(layout, tmp_path / "out")
    assert (tmp_path / "out" / "masks").is_dir()
    with pytest.raises(DxsegError):
        Dataset.load(tmp_path / "out")
    assert import_busi(layout, tmp_path / "out").images == 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cases.csv",
        "dataset.yaml",
        "masks",
    ]


@pytest.mark.real_data
def test_the_real_set(busi_root: Path, tmp_path: Path) -> None:
    report = import_busi(busi_root, tmp_path / "busi")
    assert report.labels == {"benign": 437, "malignant": 210, "normal": 133}
    assert (report.images, report.masks, report.channels) == (780, 780, 1)
    assert len(report.merged) == 17
    assert report.skipped == []
    dataset = Dataset.load(tmp_path / "busi")
    for row in dataset.cases.iloc[::60].to_dict("records"):
        mask = dataset.mask_path(row)
        assert mask is not None
        assert read_mask(mask, 1).any() == (row["label"] != "normal")
