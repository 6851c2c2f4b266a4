"""Runs at a spacing: chosen from the dataset, the same wherever the network is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg import evaluate, export_onnx
from dxseg.config.presets import load_config
from dxseg.config.schema import RunConfig
from dxseg.data.readers.images import read_image
from dxseg.data.table.cases import spacing_of
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.model_folder import read_info
from dxseg.inference.predictor import Predictor
from dxseg.training.datamodule.spacing import require_spacing, spacing_warnings, target_spacing
from dxseg.training.datamodule.training_data import prepare_training_data
from dxseg.training.preconditions import check_trainable
from dxseg.training.run import train_run

STATISTICS = ((0.5,), (0.25,))


@pytest.fixture
def spaced(copied: Path) -> Dataset:
    """The disks at 1 mm; every second image at half its size, in pixels of 2 mm."""
    dataset = Dataset.load(copied)
    cases = dataset.cases.assign(spacing_y=1.0, spacing_x=1.0)
    for row in cases.iloc[::2].itertuples():
        for name, how in (
            (row.image, Image.Resampling.BILINEAR),
            (row.mask, Image.Resampling.NEAREST),
        ):
            if name:
                image = Image.open(copied / str(name))
                image.resize((image.width // 2, image.height // 2), how).save(copied / str(name))
    cases.loc[cases.index[::2], ["spacing_y", "spacing_x"]] = 2.0
    spec = dataset.spec.model_copy(update={"spacing_unit": "mm"})
    return Dataset.create(copied, spec, cases)


def splits_of(dataset: Dataset) -> pd.DataFrame:
    return dataset.cases[["case_id", "split"]].assign(use_mask=dataset.has_mask)


def at(spacing: Any, **data: Any) -> RunConfig:
    values = {"image_size": 64, "spacing": spacing, **data}
    return load_config("cpu", "unet-scratch", {"data": values})


def test_auto_is_the_median_of_the_dataset(spaced: Dataset) -> None:
    """Of 39 images, 20 have pixels of 2 mm."""
    assert target_spacing(spaced, "auto") == (2.0, 2.0)
    assert target_spacing(spaced, (0.5, 0.7)) == (0.5, 0.7)
    assert target_spacing(spaced, None) is None
    cases = spaced.cases
    # Slices of one volume count once: of 20 coarse images, 19 are of one.
    coarse = cases.index[cases["spacing_y"].eq(2.0)]
    cases.loc[coarse[1:], "volume_id"] = "v"
    assert target_spacing(spaced, "auto") == (1.0, 1.0)


def test_auto_is_the_same_whichever_images_are_trained_on(spaced: Dataset) -> None:
    """Of the training images of one fold the pixels are fine, of those of the other coarse."""
    fine = spaced.cases["spacing_y"].eq(1.0).to_numpy()
    found = []
    for chosen in (fine, ~fine):
        splits = splits_of(spaced).assign(split=np.where(chosen, "train", "validation"))
        data = prepare_training_data(spaced, splits, at("auto"), STATISTICS)
        found.append(data.preprocessing.spacing)
    assert found == [(2.0, 2.0)] * 2


def test_a_network_of_another_spacing_teaches_nothing(tmp_path: Path) -> None:
    """`auto` of earlier versions was the median of other images."""
    require_spacing(tmp_path, (2.0, 2.0), (2.0, 2.0))
    require_spacing(tmp_path, None, None)
    with pytest.raises(DxsegError, match=r"trained at a spacing of 1 x 1 mm.* 2 x 2 mm"):
        require_spacing(tmp_path, (1.0, 1.0), (2.0, 2.0))


def test_auto_without_any_spacing_is_refused(disks: Path) -> None:
    with pytest.raises(DxsegError, match=r"cases\.csv: no image has a spacing in mm"):
        target_spacing(Dataset.load(disks), "auto")


@pytest.mark.parametrize("wrong", ["median", 1.5, (1.0,), (0.0, 1.0), (1.0, -2.0)])
def test_other_values_are_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="spacing"):
        at(wrong)


def test_images_that_are_not_at_the_spacing_are_named(spaced: Dataset) -> None:
    assert not list(spacing_warnings(spaced, at("auto"), None))
    assert not list(spacing_warnings(spaced, at((1.0, 1.0)), (1.0, 1.0)))
    spaced.cases.loc[[3, 5], ["spacing_y", "spacing_x"]] = np.nan
    names = ", ".join(spaced.cases["case_id"].iloc[[3, 5]])
    unknown, larger = spacing_warnings(spaced, at((0.5, 0.5)), (0.5, 0.5))
    assert f"2 of 39 images have no spacing ({names}): they are taken to have 0.5 x 0.5 mm" in (
        unknown
    )
    assert "37 of 39 images are larger than data.image_size = 64 at 0.5 x 0.5 mm" in larger
    assert "data.image_size=128 holds all" in larger
    # Windows reduce nothing.
    assert [*spacing_warnings(spaced, at((0.5, 0.5), sliding_window=True), (0.5, 0.5))] == [unknown]


def test_windows_need_training_and_validation_images_that_fit(spaced: Dataset) -> None:
    splits = splits_of(spaced).assign(group=range(len(spaced)))
    config = at((1.0, 1.0), sliding_window=True)
    largest = splits.index[splits["split"].eq("test")][0]
    spaced.cases.loc[largest, ["spacing_y", "spacing_x"]] = 4.0
    check_trainable(spaced, splits, config)
    splits.loc[largest, "split"] = "validation"
    with pytest.raises(DxsegError, match=r"data\.sliding_window: 1 of \d+ images of training and"):
        check_trainable(spaced, splits, config)
    check_trainable(spaced, splits, at((1.0, 1.0)))


def test_windows_without_a_spacing_are_refused() -> None:
    with pytest.raises(UsageError, match="sliding_window true: without a spacing"):
        at(None, sliding_window=True)


def test_images_masks_and_reduced_images_are_at_the_spacing(spaced: Dataset) -> None:
    """Of 64 mm, each: 32 px at 2 mm, and 16 px reduced."""
    config = load_config(
        "cpu",
        "unet-scratch",
        {"data": {"image_size": 64, "spacing": (2.0, 2.0)}, "model": {"coarse_reduction": 2}},
    )
    data = prepare_training_data(spaced, splits_of(spaced), config, STATISTICS)
    assert data.preprocessing.spacing == (2.0, 2.0)
    for case in range(len(data.label_train)):
        image = data.label_train.image(case)
        assert (np.ptp(np.nonzero(image[:, :, 0]), axis=1) == 31).all()
        coarse = data.for_stage1(data.label_train).image(case)
        assert coarse.shape == (32, 32, 1)
        assert (np.ptp(np.nonzero(coarse[:, :, 0]), axis=1) == 15).all()
    areas = np.array([data.mask_train.mask(case).sum() for case in range(len(data.mask_train))])
    assert areas[areas > 0].max() < np.pi * 13**2 / 4 * 1.1


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0)])
def test_voxels_of_slices_are_those_that_the_network_sees(
    spaced: Dataset, spacing: tuple[float, float] | None
) -> None:
    """Slices of 64 mm fill 64 px, or 32 px at 2 mm."""
    cases = spaced.cases.assign(volume_id=spaced.cases["case_id"], slice_index=0, spacing_z=3.0)
    cases.loc[cases.index[:2], "spacing_z"] = np.nan
    volumes = Dataset.create(spaced.root, spaced.spec, cases)
    splits = splits_of(volumes).assign(split="train")
    data = prepare_training_data(volumes, splits, at(spacing), STATISTICS)
    assert data.label_train.positions is not None
    voxels = [place.voxel_mm3 for place in data.label_train.positions]
    assert voxels == [None, None] + [3.0 if spacing is None else 12.0] * (len(voxels) - 2)


def test_prediction_evaluation_and_the_exported_network_use_it(
    spaced: Dataset, train: Callable[..., Path], tmp_path: Path
) -> None:
    run = train(dataset=spaced.root, data={"spacing": "auto", "sliding_window": True})
    assert read_info(run / "model").preprocessing.spacing == (2.0, 2.0)
    assert read_info(run / "model").sliding_window
    evaluate(run)
    export_onnx(run / "model", output=tmp_path / "model.onnx")
    rows = [row for row in spaced.cases.itertuples() if row.split == "test"]
    images = [read_image(spaced.image_path(row)) for row in rows]
    spacings = [spacing_of(row, spaced.spec) for row in rows]
    predictor = Predictor.from_folder(run / "model")
    found = predictor.predict(images, spacings=spacings)
    table = pd.read_csv(run / "per_image.csv").set_index("case_id")
    for row, one in zip(rows, found, strict=True):
        assert table.loc[str(row.case_id), "predicted_area"] == pytest.approx(
            one.mask.sum() * float(row.spacing_y) * float(row.spacing_x)
        )
    exported = Predictor.from_folder(tmp_path / "model.onnx").predict(images, spacings=spacings)
    for one, other in zip(found, exported, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
    elsewhere = predictor.predict(images)
    assert any(
        np.abs(one.probabilities - other.probabilities).max() > 1e-3
        for one, other in zip(found, elsewhere, strict=True)
    ), "the spacing of the images matters"


def test_a_spacing_that_cannot_be_chosen_leaves_no_folder_behind(
    disks: Path, configure: Callable[..., RunConfig], tmp_path: Path
) -> None:
    with pytest.raises(DxsegError, match="no image has a spacing"):
        train_run(disks, tmp_path / "run", configure("unet-scratch", data={"spacing": "auto"}))
    assert not (tmp_path / "run" / "config.yaml").exists()
