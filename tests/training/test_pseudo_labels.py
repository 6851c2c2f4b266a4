"""Pseudo-labels: what the label keeps of a teacher's masks, raised where it misses a lesion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dxseg.config.schema import RunConfig
from dxseg.data.batches.batches import BatchDataset
from dxseg.data.table.dataset import Dataset
from dxseg.models.segmentation_model import SegmenterOutput
from dxseg.training import pseudo_labels
from dxseg.training.datamodule.training_data import TrainingData, prepare_training_data
from dxseg.training.pseudo_labels import Teacher, make_pseudo_labels, predict_averaged

Configure = Callable[..., RunConfig]


class Brightness(nn.Module):
    """A teacher that finds bright places, and nothing on dark disks."""

    def __init__(self, cut: float) -> None:
        super().__init__()
        self.cut = cut
        self.scale = 8.0
        self.prompts: list[Tensor | None] = []

    def forward(self, x: Tensor, label_prompt: Tensor | None = None) -> SegmenterOutput:
        self.prompts.append(label_prompt)
        return SegmenterOutput((x - self.cut) * self.scale)


@pytest.fixture(scope="module")
def data(disks: Path, configure: Configure) -> TrainingData:
    """Four true masks; no lesion-free image is among those whose mask may be used."""
    dataset = Dataset.load(disks)
    config = configure("sks-evidence")
    train = dataset.cases["split"].eq("train").to_numpy()
    lesions = np.flatnonzero(train & dataset.cases["mask"].ne("").to_numpy())
    use = np.zeros(len(dataset), dtype=bool)
    use[lesions[:4]] = True
    splits = dataset.cases[["case_id", "split"]].assign(use_mask=use, group=range(len(use)))
    return prepare_training_data(dataset, splits, config, ((0.5,), (0.25,)))


def taught(
    network: Brightness, data: TrainingData, path: Path, **options: Any
) -> pseudo_labels.PseudoLabels:
    options = {"peak": None, "label_prompts": False, "report": lambda *_: None} | options
    return make_pseudo_labels([of(network, data)], data, path / "masks.npy", **options)


def of(network: Any, data: TrainingData, temperature: float = 1.0, **statistics: Any) -> Teacher:
    """A teacher with statistics of its images other than those of the run."""
    preprocessing = data.preprocessing.model_copy(update=statistics)
    return Teacher(network, preprocessing, temperature)


class TestPseudoLabels:
    """Labels go round: none, bright, dark. The teacher sees bright disks alone."""

    def test_the_label_filters_the_teacher(self, data: TrainingData, tmp_path: Path) -> None:
        reports: list[tuple[int, int]] = []
        labels = taught(
            Brightness(1.2),
            data,
            tmp_path,
            report=lambda done, total: reports.append((done, total)),
        )
        known = labels.cases.labels
        true = dict(zip(data.mask_train.image_rows.tolist(), range(4), strict=True))
        for case in range(len(labels.cases)):
            mask = labels.cases.mask(case)
            assert mask.shape == (1, 64, 64)
            row = int(labels.cases.image_rows[case])
            if row in true:  # although the teacher finds nothing on the dark ones
                assert np.array_equal(mask[0], data.mask_train.mask(true[row]) * 255)
            elif known[case] == 0:
                assert not mask.any()
            else:
                assert known[case] == 1
                assert mask.max() > 127
        dark_left_out = int((data.label_train.labels == 2).sum()) - int(
            (data.mask_train.labels == 2).sum()
        )
        assert labels.counts["left_out"] == dark_left_out > 0
        assert labels.counts == {
            "true_mask": 4,
            "lesion_free": 8,
            "teacher_mask": len(labels.cases) - 12,
            "left_out": dark_left_out,
        }
        assert labels.without_lesion.tolist() == (known == 0).tolist()
        assert reports[-1] == (12, 12)  # neither true nor lesion-free

    def test_a_lesion_that_the_teacher_misses_is_raised(
        self, data: TrainingData, tmp_path: Path
    ) -> None:
        """This teacher sees a little of every disk, and never more than one half."""
        network = Brightness(4.0)
        network.scale = 0.5
        labels = taught(network, data, tmp_path, peak=0.8)
        unmasked = labels.cases.mask_rows[labels.cases.labels > 0]
        highest = [int(labels.cases.masks[row].max()) for row in unmasked]  # type: ignore[index]
        assert labels.counts["left_out"] == 0
        assert sorted(set(highest)) == [round(0.8 * 255), 255]

    def test_without_a_label_only_certainty_counts(
        self, data: TrainingData, tmp_path: Path
    ) -> None:
        silent = replace(data.label_train, labels=np.full(24, -1))
        none = np.zeros(24, dtype=bool)
        unlabeled = replace(data, label_train=silent, lesion_free=none, without_lesion=none)
        everywhere = taught(Brightness(-9), unlabeled, tmp_path)
        assert (everywhere.counts["teacher_mask"], everywhere.counts["left_out"]) == (20, 0)
        undecided = Brightness(-9)
        undecided.scale = 0.0
        assert not everywhere.without_lesion.any()
        (tmp_path / "masks.npy").unlink()
        empty = taught(Brightness(99), unlabeled, tmp_path)
        assert empty.without_lesion.sum() == empty.counts["teacher_mask"] == 20
        (tmp_path / "masks.npy").unlink()
        nowhere = taught(undecided, unlabeled, tmp_path)
        assert (nowhere.counts["teacher_mask"], nowhere.counts["left_out"]) == (0, 20)

    def test_a_teacher_that_learned_labels_gets_those_of_the_images(
        self, data: TrainingData, tmp_path: Path
    ) -> None:
        with_prompts, without = Brightness(1.2), Brightness(1.2)
        taught(with_prompts, data, tmp_path, label_prompts=True)
        (tmp_path / "masks.npy").unlink()
        taught(without, data, tmp_path)
        given = torch.cat([prompt for prompt in with_prompts.prompts if prompt is not None])
        assert sorted(given.tolist()) == [1] * 12 + [2] * 12  # 12 cases and their mirror images
        assert set(without.prompts) == {None}

    def test_masks_of_several_teachers_are_averaged(
        self, data: TrainingData, tmp_path: Path
    ) -> None:
        networks: Any = [Brightness(1.2), Brightness(1.6)]
        stored, pixels = self.mask([of(one, data) for one in networks], data, tmp_path)
        images = data.preprocessing.normalize(pixels)
        mean = torch.stack([predict_averaged(t, images, None)[0] for t in networks]).mean(dim=0)
        assert torch.allclose(stored, mean, atol=0.5 / 255 + 1e-4)

    def test_each_teacher_sees_images_as_in_its_own_training(
        self, data: TrainingData, tmp_path: Path
    ) -> None:
        """Two backbones differ in the statistics of their pretraining."""
        first, second = Brightness(1.2), Brightness(1.2)
        other = {"mean": (0.449,), "std": (0.226,)}
        stored, pixels = self.mask([of(first, data), of(second, data, **other)], data, tmp_path)
        logits = [(pixels / 255 - 0.5) / 0.25 - 1.2, (pixels / 255 - 0.449) / 0.226 - 1.2]
        mean = torch.stack([(8 * one[0]).sigmoid() for one in logits]).mean(dim=0)
        assert torch.allclose(stored, mean, atol=0.5 / 255 + 1e-4)

    def test_one_that_is_far_too_sure_does_not_outvote_the_first(
        self, data: TrainingData, tmp_path: Path
    ) -> None:
        """A teacher alone, and one of the same temperature as the first, stay as they are."""
        sure: Any = Brightness(1.2)
        sure.scale = 40.0
        alone, _ = self.mask([of(sure, data, 5.0)], data, tmp_path)
        equal, _ = self.mask([of(sure, data, 5.0)] * 2, data, tmp_path)
        plain, _ = self.mask([of(sure, data)], data, tmp_path)
        assert torch.equal(alone, plain)
        assert torch.equal(equal, plain)
        calm, _ = self.mask([of(Brightness(1.2), data)], data, tmp_path)
        both, _ = self.mask([of(Brightness(1.2), data), of(sure, data, 5.0)], data, tmp_path)
        assert torch.allclose(both, calm, atol=1 / 255)
        assert not torch.allclose(plain, calm, atol=0.1)

    def mask(
        self, teachers: list[Teacher], data: TrainingData, folder: Path
    ) -> tuple[Tensor, Tensor]:
        """The pseudo-label (K, S, S) of an image with a bright disk, and its stored pixels."""
        path = folder / "masks.npy"
        path.unlink(missing_ok=True)
        options: Any = {"peak": None, "label_prompts": False}
        labels = make_pseudo_labels(teachers, data, path, lambda *_: None, **options)
        row = int(np.flatnonzero(data.label_train.labels == 1)[-1])
        stored = torch.from_numpy(np.array(labels.cases.masks[row])) / 255  # type: ignore[index]
        return stored, torch.from_numpy(data.label_train.image(row)).permute(2, 0, 1)[None]

    def test_masks_stay_soft_in_a_batch(self, data: TrainingData, tmp_path: Path) -> None:
        labels = taught(Brightness(1.2), data, tmp_path)
        batches = BatchDataset(labels.cases, data.preprocessing, None)
        batch = batches[[(row, 0) for row in range(len(labels.cases))]]
        soft = batch["mask"]
        assert soft.shape[1:] == (1, 64, 64)
        assert 0 <= soft.min() < soft.max() <= 1
        assert ((soft > 0.05) & (soft < 0.95)).any()
        row = int(np.flatnonzero(labels.cases.labels == 1)[-1])
        pixels = batch["image"][row : row + 1]
        wanted = predict_averaged(Brightness(1.2), pixels, None)[0]  # type: ignore[arg-type]
        assert torch.allclose(soft[row], wanted, atol=0.5 / 255 + 1e-4)

    def test_the_average_of_a_flip_does_not_depend_on_the_side(self) -> None:
        torch.manual_seed(0)
        layer = nn.Conv2d(1, 1, 3, padding=1)
        network: Any = lambda x, _: SegmenterOutput(layer(x))  # noqa: E731
        x = torch.randn(2, 1, 8, 8)
        mean = predict_averaged(network, x, None)
        assert torch.allclose(predict_averaged(network, x.flip(-1), None), mean.flip(-1), atol=1e-6)
        assert not torch.allclose(layer(x).sigmoid(), mean, atol=1e-3)
