"""Series of a PACS export become volumes, with the masks that refer to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dicom_phantom import SQUARE, place, segmentation, structure_set
from dxseg.commands.import_dicom import import_dicom
from dxseg.data.readers.images import read_image
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError

Make = Callable[..., Any]
Store = Callable[..., Path]


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_a_series_with_its_mask_becomes_labelled_slices(
    series: Make, store: Store, tmp_path: Path, phantom: Any, kind: str
) -> None:
    sources = series(phantom)
    lesion = np.zeros(phantom.shape, np.uint8)
    lesion[2, 2:6, 2:6] = 1
    mask = (
        segmentation(sources, {1: lesion})
        if kind == "SEG"
        else structure_set(sources, [place(sources[2], SQUARE)])
    )
    report = import_dicom(store([*sources, mask]), tmp_path / "data", window="0,2000")
    dataset = Dataset.load(tmp_path / "data")
    assert dataset.spec.lesion_free == ["no lesion"]
    assert dataset.cases["label"].tolist() == ["no lesion"] * 2 + ["lesion"] + ["no lesion"] * 3
    assert report.volumes == 1
    row = dataset.cases.iloc[2]
    assert np.array_equal(read_mask(dataset.mask_path(row), 1), lesion[2])
    assert (row["spacing_y"], row["spacing_x"]) == (0.5, 0.75)
    gray = np.rint((phantom[2] + 1000) * (255 / 2000)).clip(0, 255)
    assert np.array_equal(read_image(dataset.image_path(row))[:, :, 0], gray)


def test_a_slice_whose_contour_cannot_be_filled_is_not_lesion_free(
    series: Make, store: Store, phantom: Any, tmp_path: Path
) -> None:
    sources = series(phantom)
    rings = [place(sources[2], SQUARE), place(sources[4], SQUARE[:2]), place(sources[5], SQUARE)]
    report = import_dicom(store([*sources, structure_set(sources, rings)]), tmp_path / "data")
    cases = Dataset.load(tmp_path / "data").cases
    labels = ["no lesion", "no lesion", "lesion", "no lesion", "", "lesion"]
    assert cases["label"].tolist() == labels
    assert cases["mask"].ne("").tolist() == [label == "lesion" for label in labels]
    assert any("1 contours left out" in note for note in report.notes)


@pytest.mark.parametrize("damage", ["no references", "no sequence", "no area"])
def test_another_mask_that_cannot_be_read_leaves_empty_slices_unlabelled(
    series: Make, store: Store, phantom: Any, tmp_path: Path, damage: str
) -> None:
    sources = series(phantom)
    lesion = np.zeros(phantom.shape, np.uint8)
    lesion[2, 2:6, 2:6] = 1
    other = structure_set(sources, [place(sources[4], SQUARE)])
    if damage == "no references":
        del other.ReferencedFrameOfReferenceSequence
    elif damage == "no sequence":
        del other.ROIContourSequence
    else:
        other = structure_set(sources, [place(sources[4], SQUARE[:2])])
    report = import_dicom(
        store([*sources, segmentation(sources, {1: lesion}), other]), tmp_path / "data"
    )
    cases = Dataset.load(tmp_path / "data").cases
    assert cases["label"].tolist() == ["", "", "lesion", "", "", ""]
    assert any("are unlabeled" in note for note in report.notes)


@pytest.mark.parametrize("background", [0, -1024])
def test_a_series_that_looks_like_a_label_map_is_asked_about(
    series: Make, store: Store, phantom: Any, tmp_path: Path, background: int
) -> None:
    labels = np.full(phantom.shape, background)
    labels[2, 2:6, 2:6] = background + 1
    export = store([*series(phantom), *series(labels)])
    report = import_dicom(export, tmp_path / "asked")
    assert (report.volumes, report.images) == (1, len(phantom))
    assert "looks like a label map" in report.skipped[0][1]
    assert report.failed
    kept = import_dicom(export, tmp_path / "kept", keep_mask_like=True)
    assert (kept.volumes, kept.failed) == (2, [])


def test_objects_that_may_be_images_are_left_out_with_exit_code_1(
    series: Make, store: Store, phantom: Any, tmp_path: Path
) -> None:
    export = store(series(phantom))
    (export / "report.txt").write_text("no image")
    assert import_dicom(export, tmp_path / "whole").failed == []
    first = sorted(export.iterdir())[0]
    (export / "cut.dcm").write_bytes(first.read_bytes()[:200])
    (export / "shot.jpg").write_bytes(b"no DICOM")
    report = import_dicom(export, tmp_path / "data")
    assert report.failed[0][0] == "2 images left out"


def test_regions_that_no_mask_has_are_refused_with_their_numbers(
    series: Make, store: Store, phantom: Any, tmp_path: Path
) -> None:
    sources = series(phantom)
    lesions = {number: np.zeros(phantom.shape, np.uint8) for number in (1, 2)}
    lesions[1][1, 2, 2] = lesions[2][4, 3, 5] = 1
    export = store([*sources, segmentation(sources, lesions)])
    with pytest.raises(UsageError, match=r"--region 5: no mask has .* are numbered 1, 2"):
        import_dicom(export, tmp_path / "data", regions={"5": "lesion"})


def test_series_that_are_no_grid_are_left_out_and_told(
    series: Make, store: Store, tmp_path: Path, phantom: Any
) -> None:
    good, bad = series(phantom), series(phantom)
    del bad[2]
    report = import_dicom(store([*good, *bad]), tmp_path / "data")
    assert (report.volumes, report.images) == (1, 6)
    [(name, reason)] = report.skipped
    assert name.startswith("series-")
    assert "as if 1 were missing" in reason


@pytest.mark.real_data
def test_lidc_windows_as_a_series(
    lidc_root: Path, series: Make, store: Store, tmp_path: Path
) -> None:
    cases = pd.read_csv(lidc_root / "cases.csv", keep_default_na=False)
    chosen = cases[cases["mask"].ne("")].head(12)
    stacked, outlined = (
        np.stack([np.asarray(Image.open(lidc_root / name).convert("L")) for name in chosen[column]])
        for column in ("image", "mask")
    )
    sources = series(4 * stacked.astype(int) - 1000, spacing=(1.25, 0.7, 0.7))
    seg = segmentation(sources, {1: outlined > 0})
    import_dicom(store([*sources, seg]), tmp_path / "data", window="-490,1020")
    dataset = Dataset.load(tmp_path / "data")
    assert len(dataset) == 12
    for row, pixels, mask in zip(dataset.cases.itertuples(), stacked, outlined, strict=True):
        assert np.array_equal(read_image(dataset.image_path(row))[:, :, 0], pixels)
        path = dataset.mask_path(row)
        drawn = np.zeros_like(mask) if path is None else read_mask(path, 1)
        assert np.array_equal(drawn, mask > 0)


def test_series_that_are_no_grid_are_resampled_on_request_with_their_masks(
    series: Make, store: Store, tmp_path: Path
) -> None:
    """Gaps of 2 and 4 mm become slices at 2 mm; the mask is where the box is."""
    voxels = np.full((9, 12, 9), -1000)
    voxels[2:6, 3:9, 2:7] = 500
    sources = series(voxels)
    del sources[3]
    mask = np.delete(voxels, 3, axis=0) > 0
    export = store([*sources, segmentation(sources, {1: mask})])
    with pytest.raises(DxsegError, match="--resample"):
        import_dicom(export, tmp_path / "data", dry_run=True)
    report = import_dicom(export, tmp_path / "data", resample=True, window="0,1000")
    assert (report.volumes, report.images, report.skipped) == (1, 9, [])
    dataset = Dataset.load(tmp_path / "data")
    for row in dataset.cases.itertuples():
        bright = read_image(dataset.image_path(row))[:, :, 0] > 127
        path = dataset.mask_path(row)
        drawn = np.zeros(bright.shape) if path is None else read_mask(path, 1)
        np.testing.assert_array_equal(drawn > 0, bright)
        assert bright.any() == (2 <= row.slice_index < 6)
