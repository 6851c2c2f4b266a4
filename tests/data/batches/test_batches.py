"""Batches: targets, views and label prompts, the same in whichever process they are made."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from dxseg.config.schema import AugmentConfig
from dxseg.config.stages import SelfTrainingConfig
from dxseg.data.batches.augment import StrongAugmentation, build_augmentation
from dxseg.data.batches.batches import (
    BatchDataset,
    CaseDataset,
    make_dataloader,
)
from dxseg.data.batches.samplers import StratifiedBatchSampler
from dxseg.data.preprocessing import Preprocessing


def arrays(*, dtype: Any = np.uint8, channels: int = 1, classes: int = 1) -> CaseDataset:
    """Ten stored images; case i is image 9 - i and mask i."""
    images = np.zeros((10, 32, 32, channels), dtype)
    images[:] = (np.arange(10) * 20).astype(dtype)[:, None, None, None]
    masks = np.zeros((10, 32, 32), np.uint8)
    for index in range(10):
        masks[index, :index] = 1 + index % classes
    return CaseDataset(images, np.arange(10)[::-1], masks, np.arange(10), np.arange(10), classes)


def preprocessing(channels: int = 1) -> Preprocessing:
    return Preprocessing(
        image_size=32, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels
    )


class TestBatches:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_rows_point_into_the_shared_arrays(self, dtype: Any) -> None:
        batches = BatchDataset(arrays(dtype=dtype, channels=2), preprocessing(2), None)
        batch = batches[[(3, 0), (8, 0)]]
        assert batch["image"].shape == (2, 2, 32, 32)
        assert batch["image"].dtype == torch.float32
        assert batch["image"][:, 0, 0, 0].tolist() == pytest.approx([120 / 255, 20 / 255])
        assert batch["mask"].sum(dim=(1, 2, 3)).tolist() == [3 * 32, 8 * 32]
        assert batch["label"].tolist() == [3, 8]

    def test_label_maps_become_one_plane_a_class(self) -> None:
        batch = BatchDataset(arrays(classes=3), preprocessing(), None)[[(1, 0), (2, 0), (3, 0)]]
        assert batch["mask"].shape == (3, 3, 32, 32)
        # Case i has class 1 + i % 3 on its first i rows and nothing else.
        wanted = [[0, 32, 0], [0, 0, 64], [96, 0, 0]]
        assert batch["mask"].sum(dim=(2, 3)).tolist() == wanted

    def test_without_masks_the_mask_is_empty(self) -> None:
        a = arrays()
        labels_only = CaseDataset(a.images, a.image_rows, None, a.mask_rows, a.labels, 1)
        batch = BatchDataset(labels_only, preprocessing(), None)[[(5, 0)]]
        assert not batch["mask"].any()

    def test_multi_label_rows_keep_their_unknowns(self) -> None:
        a = arrays()
        labels = np.array([[0, 1], [np.nan, np.nan]] * 5, np.float32)
        several = CaseDataset(a.images, a.image_rows, a.masks, a.mask_rows, labels, 1)
        batch = BatchDataset(several, preprocessing(), None)[[(0, 0), (1, 0)]]
        assert batch["label"][0].tolist() == [0, 1]
        assert batch["label"][1].isnan().all()

    def test_the_arrays_are_never_written_to(self) -> None:
        a = arrays()
        for array in (a.images, a.masks):
            array.flags.writeable = False
        augmentation = build_augmentation(AugmentConfig(noise=1.0))
        BatchDataset(a, preprocessing(), augmentation)[[(0, 1), (1, 2)]]

    def test_standardisation_comes_after_augmentation(self) -> None:
        """A black border that a shift brings in is black, not the mean of the pretraining."""
        p = Preprocessing(image_size=32, channels=1, mean=(0.5,), std=(0.5,))
        augmentation = build_augmentation(AugmentConfig(translate=0.5, noise=0, brightness=0))
        image = BatchDataset(arrays(), p, augmentation)[[(0, seed) for seed in range(8)]]["image"]
        assert float(image.min()) == pytest.approx(-1)
        assert float(image.max()) <= 1

    def test_without_samples_a_batch_has_no_rows(self) -> None:
        batch = BatchDataset(arrays(classes=2), preprocessing(), None)[[]]
        assert batch["image"].shape == (0, 1, 32, 32)
        assert batch["mask"].shape == (0, 2, 32, 32)
        assert batch["label"].shape == (0,)

    def test_memory_maps_are_pickled_by_name(self, tmp_path: Path) -> None:
        a = arrays()
        np.save(tmp_path / "images.npy", np.zeros((10, 256, 256, 1), np.uint8))
        mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
        cases = replace(a, images=mapped)
        content = pickle.dumps(cases)
        assert len(content) < 50_000
        again = pickle.loads(content)  # noqa: S301 - written above
        assert isinstance(again.images, np.memmap)
        assert np.array_equal(again.image(3), cases.image(3))
        assert np.array_equal(again.mask(3), cases.mask(3))


class TestLabelPrompts:
    """Each sample's own seed decides whether its label is given to the network."""

    def batch(self, labels: np.ndarray, probability: float) -> Any:
        a = arrays()
        rows = np.arange(len(labels)) % 10
        cases = CaseDataset(a.images, rows, a.masks, rows, labels, 1)
        augmentation = build_augmentation(AugmentConfig())
        dataset = BatchDataset(cases, preprocessing(), augmentation, label_prompt_prob=probability)
        return dataset[[(row, 10_000 + row) for row in range(len(labels))]]

    def test_a_fraction_of_the_labels_is_given_and_unknown_ones_stay_unknown(self) -> None:
        batch = self.batch(np.arange(1200) % 4 - 1, 0.3)
        label, prompt = batch["label"], batch["label_prompt"]
        given = prompt >= 0
        assert torch.equal(prompt[given], label[given])
        assert not given[label < 0].any()
        assert given[label >= 0].float().mean().item() == pytest.approx(0.3, abs=0.05)

    def test_all_or_none(self) -> None:
        labels = np.arange(40) % 4 - 1
        assert torch.equal(self.batch(labels, 1.0)["label_prompt"], torch.from_numpy(labels))
        assert (self.batch(labels, 0.0)["label_prompt"] == -1).all()

    def test_labels_of_one_image_are_given_together(self) -> None:
        batch = self.batch(np.tile(np.array([[0, 1, 1]], np.float32), (400, 1)), 0.5)
        label, prompt = batch["label"], batch["label_prompt"]
        hidden = prompt.isnan().all(dim=1)
        assert torch.equal(prompt.isnan().any(dim=1), hidden)
        assert torch.equal(prompt[~hidden], label[~hidden])
        assert 100 < hidden.sum() < 300


class TestStrongImages:
    def batch(self, samples: list[tuple[int, int]], **options: Any) -> Any:
        """Even cases have a mask."""
        mask_rows = np.where(np.arange(10) % 2 == 0, np.arange(10), -1)
        strong = StrongAugmentation(SelfTrainingConfig(**options))
        augmentation = build_augmentation(AugmentConfig())
        cases = replace(arrays(), mask_rows=mask_rows)
        return BatchDataset(cases, preprocessing(), augmentation, strong=strong)[samples]

    def test_only_images_without_a_mask_are_changed(self) -> None:
        batch = self.batch([(row, row) for row in range(8)])
        same = (batch["strong_views"][:, 0] == batch["image"]).flatten(1).all(dim=1)
        assert torch.equal(same, batch["masked"])
        assert not batch["replaced"].any()

    def test_views_of_an_image_differ_but_not_of_one_with_a_mask(self) -> None:
        batch = self.batch([(row, row) for row in range(8)], strong_views=3)
        views = batch["strong_views"]
        assert views.shape == (8, 3, *batch["image"].shape[1:])
        same = (views[:, 1:] == views[:, :1]).flatten(1).all(dim=1)
        assert torch.equal(same, batch["masked"])

    @pytest.mark.parametrize(
        ("mix", "least", "most"), [("cutmix", 0.02, 0.4), ("copy-paste", 0.4, 0.5)]
    )
    def test_a_rectangle_of_each_view_is_replaced(
        self, mix: str, least: float, most: float
    ) -> None:
        samples = [(row, seed) for row in (1, 3) for seed in range(6)]
        batch = self.batch([*samples, (2, 0)], mix=mix, strong_views=2)
        boxes = batch["replaced"].squeeze(2)
        assert not boxes[-1].any(), "the box of an image with a mask is its partner's"
        for box in boxes[:-1].flatten(0, 1):
            rows, columns = box.any(dim=1).nonzero(), box.any(dim=0).nonzero()
            filled = box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert filled.all()
            assert least - 0.05 < box.float().mean() < most + 0.05
        assert not torch.equal(boxes[0, 0], boxes[0, 1]) or not torch.equal(
            boxes[1, 0], boxes[1, 1]
        )

    def test_some_views_are_mixed(self) -> None:
        samples = [(1, seed) for seed in range(200)]
        boxes = self.batch(samples, mix="cutmix", mix_prob=0.5)["replaced"]
        assert 70 < boxes.flatten(1).any(dim=1).sum() < 130

    def test_nothing_is_changed_without_strength(self) -> None:
        batch = self.batch([(1, 5), (3, 6)], contrast=0, brightness=0, noise=0, erased=0)
        torch.testing.assert_close(batch["strong_views"][:, 0], batch["image"])

    def test_a_part_is_erased(self) -> None:
        samples = [(row, seed) for row in (1, 3) for seed in range(8)]
        batch = self.batch(samples, contrast=0, brightness=0, noise=0, erased=0.2)
        changed = (batch["strong_views"][:, 0] != batch["image"]).flatten(1).float().mean(dim=1)
        assert changed.max() > 0
        assert (changed < 0.25).all()

    def test_they_depend_on_the_seed_of_the_sample_alone(self) -> None:
        torch.manual_seed(1)
        options: Any = {"strong_views": 2, "mix": "cutmix"}
        one = self.batch([(1, 7), (3, 8)], **options)
        torch.manual_seed(2)
        other = self.batch([(3, 8), (5, 9), (1, 7)], **options)
        for name in ("image", "strong_views", "replaced", "label_prompt"):
            assert torch.equal(one[name][0], other[name][2])
            assert torch.equal(one[name][1], other[name][0])


def make_loader(workers: int) -> Any:
    batches = BatchDataset(
        arrays(),
        preprocessing(),
        build_augmentation(AugmentConfig()),
        strong=StrongAugmentation(SelfTrainingConfig()),
        label_prompt_prob=0.5,
    )
    sampler = StratifiedBatchSampler([(np.arange(10), 4)], 3, seed=5)
    return make_dataloader(batches, sampler, workers)


def test_workers_make_the_batches_of_the_main_process() -> None:
    """Two epochs, so that the workers that persist are told of the second one."""
    here, elsewhere = make_loader(0), make_loader(2)
    for epoch in (0, 1):
        for loader in (here, elsewhere):
            loader.sampler.set_epoch(epoch)
        torch.manual_seed(epoch)  # nothing global may matter
        for mine, theirs in zip(here, elsewhere, strict=True):
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)


class OwnDraws(Dataset[Any]):
    """An augmentation of a user's own, which asks the global generators."""

    def __getitem__(self, draws: Any) -> tuple[float, float, float]:
        return torch.rand(()).item(), np.random.random(), random.random()  # noqa: NPY002


def test_a_worker_s_global_generators_are_seeded_too() -> None:
    def drawn(seed: int) -> list[Any]:
        batches: Any = OwnDraws()
        return list(
            make_dataloader(
                batches, StratifiedBatchSampler([(np.arange(9), 3)], 2, seed), workers=1
            )
        )

    before = torch.get_rng_state()
    first = drawn(1)
    assert first == drawn(1)
    assert all(one != other for one, other in zip(first[0], drawn(2)[0], strict=True))
    assert torch.equal(torch.get_rng_state(), before), "starting workers draws from none"
