"""Organs beside lesions: what is a rule about lesions is not satisfied by the organ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from brightness import BrightnessSegmenter
from dxseg.config.network import ModelConfig
from dxseg.config.schema import RunConfig
from dxseg.data.batches.batches import CaseDataset
from dxseg.data.preprocessing import Preprocessing
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.data.table.volumes import SlicePosition
from dxseg.errors import DxsegError
from dxseg.inference.components import ComponentFilter
from dxseg.inference.model_info import ModelInfo
from dxseg.models.segmentation_model import SegmenterOutput
from dxseg.training.axis_smoothing import choose_smoothing
from dxseg.training.component_filter import choose_components
from dxseg.training.datamodule.stage_data import StageData, mask_batches
from dxseg.training.datamodule.training_data import TrainingData, prepare_training_data
from dxseg.training.pseudo_labels import Teacher, make_pseudo_labels

SIZE, CASES = 64, 18
INFO = ModelInfo(
    model=ModelConfig(),
    preprocessing=Preprocessing(image_size=SIZE, channels=2, mean=(0.5,) * 2, std=(1.0,) * 2),
    labels=[],
    mask_classes=["liver", "tumor"],
    lesion_classes=["tumor"],
)

Configure = Callable[..., RunConfig]


def livers(root: Path, tumors: int, *, label: bool = True) -> Dataset:
    """Eighteen images of a bright liver, the first few of which have a dark tumor."""
    rows = []
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(CASES):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[8:56, 8:56] = 1
        if number < tumors:
            mask[20:32, 20:32] = 2
        pixels = np.array([20, 200, 100], np.uint8)[mask]
        name = f"{number:02}.png"
        Image.fromarray(pixels).save(root / "images" / name)
        Image.fromarray(mask).save(root / "masks" / name)
        of_case = ("tumor" if number < tumors else "no tumor") if label else ""
        rows.append((name[:2], f"images/{name}", f"masks/{name}", of_case, name))
    spec = DatasetSpec(
        name="livers",
        labels=["no tumor", "tumor"],
        organs_only=["no tumor"],
        mask_classes=["liver", "tumor"],
        lesion_classes=["tumor"],
    )
    columns = ["case_id", "image", "mask", "label", "patient_id"]
    return Dataset.create(root, spec, pd.DataFrame(rows, columns=columns))


def data_of(dataset: Dataset, config: RunConfig, use: Any = True) -> TrainingData:
    splits = dataset.cases[["case_id"]].assign(split="train", use_mask=use, group=range(CASES))
    return prepare_training_data(dataset, splits, config, ((0.5,), (0.25,)))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("label", [True, False])
def test_batches_are_balanced_by_lesion(
    tmp_path: Path, configure: Configure, label: bool, soft: bool
) -> None:
    options = {"batch_size": 8, "lesion_free_fraction": 0.25, "soft_masks": soft}
    config = configure("unet-scratch", data=options)
    data = data_of(livers(tmp_path / "data", 9, label=label), config)
    assert data.without_lesion_masks.tolist() == [False] * 9 + [True] * 9
    assert not data.lesion_free.any(), "no mask is empty"
    assert config.stage2 is not None
    _, sampler = mask_batches(data, config, config.stage2)
    for samples in sampler:
        assert sum(row >= 9 for row, _ in samples) == 2


def test_patches_are_drawn_for_lesions(tmp_path: Path, configure: Configure) -> None:
    config = configure("unet-scratch")
    data = data_of(livers(tmp_path / "data", 9), config)
    patches = StageData(data, config, {}, None, patch_size=32).patches
    assert patches is not None
    assert list(patches.lesion_channels) == [1]


@pytest.mark.parametrize("label", [True, False])
def test_masks_of_organs_alone_are_no_masks_of_a_lesion(
    tmp_path: Path, configure: Configure, label: bool
) -> None:
    dataset = livers(tmp_path / "data", 0, label=label)
    with pytest.raises(DxsegError, match="no training case with a lesion has a mask"):
        data_of(dataset, configure("unet-scratch"))


class Faint(torch.nn.Module):
    """A teacher that is certain of livers, and suspects tumors."""

    def forward(self, x: torch.Tensor, _: Any) -> SegmenterOutput:
        return SegmenterOutput(torch.cat([8 * (x - 1), -4 * x.abs() - 1], dim=1))


def test_a_pseudo_label_shows_the_lesion_of_its_label_and_not_the_organ_alone(
    tmp_path: Path, configure: Configure
) -> None:
    use = np.arange(CASES) % 9 < 2
    data = data_of(livers(tmp_path / "data", 9), configure("unet-student"), use)
    teachers: Any = [Teacher(Faint(), data.preprocessing)]  # type: ignore[arg-type]
    counts = {}
    for peak in (None, 0.8):
        options: Any = {"peak": peak, "label_prompts": False, "report": lambda *_: None}
        labels = make_pseudo_labels(teachers, data, tmp_path / f"{peak}.npy", **options)
        counts[peak] = labels.counts
    assert counts[None] == {"true_mask": 4, "lesion_free": 0, "teacher_mask": 7, "left_out": 7}
    assert counts[0.8] == {"true_mask": 4, "lesion_free": 0, "teacher_mask": 14, "left_out": 0}
    assert labels.without_lesion.tolist() == [False] * 9 + [True] * 9
    liver, tumor = labels.cases.mask(5)
    assert tumor.max() == round(0.8 * 255)
    np.testing.assert_array_equal(liver, labels.cases.mask(11)[0] * (liver > 0), strict=True)


def cases(tumor: list[slice], found: list[slice], *, specks: int = 0) -> CaseDataset:
    """Images of a liver with a square tumor, of which the network finds a part, and specks."""
    masks = np.zeros((len(tumor), SIZE, SIZE), np.uint8)
    masks[:, 4:60, 4:30] = 1
    images = np.zeros((*masks.shape, 2), np.uint8)
    images[:, 4:60, 4:30, 0] = 250
    for mask, image, true, marked in zip(masks, images, tumor, found, strict=True):
        mask[true, true] = 2
        image[true, true, 0] = 0
        image[marked, marked, 1] = 250
        for number in range(specks):
            image[30 + 4 * number : 32 + 4 * number, 40:42, 1] = 250
    rows = np.arange(len(masks))
    return CaseDataset(images, rows, masks, rows, np.full(len(masks), -1), 2)


NONE, WHOLE, PART = slice(0, 0), slice(8, 20), slice(8, 10)
NETWORK = BrightnessSegmenter(2, labels=0)


def test_a_filter_that_loses_a_tumor_within_an_organ_is_not_chosen() -> None:
    training = cases([WHOLE], [WHOLE])
    chosen, _ = choose_components(
        NETWORK, INFO, cases([WHOLE] * 8, [WHOLE] * 8, specks=6), training
    )
    assert chosen == ComponentFilter(min_area=8)
    validation = cases([WHOLE] * 8, [WHOLE] * 7 + [PART], specks=6)
    training.masks[0, 40:52, 8:20] = 2  # type: ignore[index]  # a second one: `largest_only` is out
    chosen, record = choose_components(NETWORK, INFO, validation, training)
    assert chosen is None
    assert "no filter gains" in record["note"]


def test_masks_of_organs_alone_do_not_count_for_a_filter() -> None:
    tumors = [WHOLE] * 4 + [NONE] * 4
    chosen, record = choose_components(
        NETWORK, INFO, cases(tumors, tumors, specks=6), cases([WHOLE], [WHOLE])
    )
    assert chosen is None
    assert "fewer than 5 masks with a lesion" in record["note"]


def volumes(tumors: int) -> CaseDataset:
    """Three volumes of ten slices of a noisy liver, with a tumor that is found in a few voxels."""
    count, slices = 3, 10
    flat = cases([NONE] * count * slices, [NONE] * count * slices)
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 60, flat.masks.shape)  # type: ignore[union-attr]
    flat.images[..., 0] = (60 + 135 * (flat.masks == 1) + noise).clip(0, 255)
    for row in range(tumors * slices):
        flat.masks[row, WHOLE, WHOLE] = 2  # type: ignore[index]
        if row % slices == 4:
            flat.images[row, 8:12, 8:12] = (0, 250)
    flat.__dict__["positions"] = np.array(
        [SlicePosition(f"v{row // slices}", row % slices, 2.5) for row in range(count * slices)],
        object,
    )
    return flat


def test_a_smoothing_that_loses_the_tumor_of_a_volume_is_not_chosen() -> None:
    network = BrightnessSegmenter(2, labels=0, gain=8)
    sigma, record = choose_smoothing(network, INFO, volumes(2))
    assert sigma == 1.25
    assert record["dice_after"] > record["dice_before"]
    livers = INFO.model_copy(update={"lesion_classes": ["liver"]})
    assert choose_smoothing(network, livers, volumes(2))[0] > sigma


def test_volumes_of_organs_alone_do_not_count_for_a_smoothing() -> None:
    sigma, record = choose_smoothing(NETWORK, INFO, volumes(1))
    assert sigma == 0
    assert "fewer than 2 volumes with a lesion" in record["note"]
