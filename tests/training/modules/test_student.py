"""A student: labels teach its mask, pseudo-labels are raised where the label means a lesion."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dxseg.models.factory import Task
from dxseg.models.heads import LESION_PRIOR
from dxseg.training.modules.student import LESION_AREA, mask_label_loss
from dxseg.training.pseudo_labels import raise_peak
from dxseg.training.thresholds import implies_lesion

TASK = Task(channels=1, mask_classes=1, labels=3, lesion_free=(0,))
SIDE = 20
"""The pixels that decide are then `LESION_AREA` of 400: two."""


def logits(*highest: float, rest: float = -4.0) -> torch.Tensor:
    """One image (1, 1, SIDE, SIDE) with some pixels set."""
    image = torch.full((1, 1, SIDE, SIDE), rest)
    image.view(-1)[: len(highest)] = torch.tensor(highest)
    return image


def showing(*covered: int, classes: int = 1) -> torch.Tensor:
    """Targets (B, classes, SIDE, SIDE), in each of which so many pixels of every class are set."""
    targets = torch.zeros((len(covered), classes, SIDE * SIDE))
    for target, pixels in zip(targets, covered, strict=True):
        target[:, :pixels] = 0.8
    return targets.view(-1, classes, SIDE, SIDE)


def cross_entropy(logit: float, target: float) -> float:
    return float(F.binary_cross_entropy_with_logits(torch.tensor(logit), torch.tensor(target)))


class TestMaskLabelLoss:
    """Labels: 0 lesion-free, 1 and 2 lesions, -1 unknown."""

    @pytest.mark.parametrize(("label", "target"), [(0, 0.0), (1, 1.0), (2, 1.0)])
    def test_it_is_cross_entropy_of_the_highest_pixels(self, label: int, target: float) -> None:
        assert round(LESION_AREA * SIDE * SIDE) == 2
        image, masks = logits(3.0, 1.0, 0.5), showing(9 * (label > 0))
        loss = mask_label_loss(image, masks, torch.tensor([label]), TASK)
        assert float(loss) == pytest.approx(cross_entropy(2.0, target), rel=1e-6)

    def test_a_lesion_smaller_than_these_must_only_be_as_large_as_it_is(self) -> None:
        loss = mask_label_loss(logits(3.0, 1.0), showing(1), torch.tensor([1]), TASK)
        assert float(loss) == pytest.approx(cross_entropy(3.0, 1.0), rel=1e-6)

    def test_a_lesion_that_is_not_in_the_picture_any_more_does_not_count(self) -> None:
        images, labels = torch.cat([logits(3.0, 1.0), logits(9.0)]), torch.tensor([1, 1])
        loss = mask_label_loss(images, showing(9, 0), labels, TASK)
        assert float(loss) == pytest.approx(cross_entropy(2.0, 1.0), rel=1e-6)

    def test_images_with_and_without_a_lesion_have_the_same_weight(self) -> None:
        images = torch.cat([logits(2.0, 2.0), logits(1.0, 1.0), logits(-1.0, -1.0)])
        loss = mask_label_loss(images, showing(9, 9, 0), torch.tensor([1, 2, 0]), TASK)
        lesions = (cross_entropy(2.0, 1.0) + cross_entropy(1.0, 1.0)) / 2
        assert float(loss) == pytest.approx((lesions + cross_entropy(-1.0, 0.0)) / 2, rel=1e-6)

    def test_unknown_labels_do_not_count(self) -> None:
        both = torch.cat([logits(3.0, 1.0), logits(-9.0)])
        one = mask_label_loss(both[:1], showing(9), torch.tensor([1]), TASK)
        two = mask_label_loss(both, showing(9, 9), torch.tensor([1, -1]), TASK)
        assert float(two) == pytest.approx(float(one))
        unknown = torch.tensor([-1, -1])
        none = mask_label_loss(both.requires_grad_(), showing(9, 9), unknown, TASK)
        none.backward()
        assert float(none.detach()) == 0

    @pytest.mark.parametrize(("label", "target"), [(0, 0.0), (1, 1.0)])
    def test_an_organ_is_neither_the_lesion_of_a_label_nor_against_one_without(
        self, label: int, target: float
    ) -> None:
        organs = replace(TASK, mask_classes=2, organs=(0,), lesion_free=(), organs_only=(0,))
        both = torch.cat([logits(9.0, 9.0), logits(3.0, 1.0)], dim=1)
        loss = mask_label_loss(both, showing(9, classes=2), torch.tensor([label]), organs)
        assert float(loss) == pytest.approx(cross_entropy(2.0, target), rel=1e-6)
        assert implies_lesion(np.array([0, 1]), organs.without_lesion).tolist() == [False, True]

    def test_several_labels_at_once(self) -> None:
        """Labels (lesion-free, a, b): with a, without a lesion, not known."""
        label = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, math.nan, 1.0]])
        images = torch.cat([logits(2.0, 2.0), logits(-1.0, -1.0), logits(9.0)])
        wanted = (cross_entropy(2.0, 1.0) + cross_entropy(-1.0, 0.0)) / 2
        loss = mask_label_loss(images, showing(9, 0, 9), label, TASK)
        assert float(loss) == pytest.approx(wanted)

    def test_any_class_may_be_the_lesion(self) -> None:
        two = torch.cat([logits(-4.0), logits(3.0, 3.0)], dim=1)
        task = replace(TASK, mask_classes=2)
        loss = mask_label_loss(two, showing(9, classes=2), torch.tensor([1]), task)
        assert float(loss) == pytest.approx(math.log1p(math.exp(-3)), rel=1e-5)

    def test_a_lesion_that_is_missed_pulls_the_likeliest_pixels_up(self) -> None:
        image = logits(-1.0, -1.5, -2.0).requires_grad_()
        mask_label_loss(image, showing(9), torch.tensor([1]), TASK).backward()
        pull: Any = image.grad
        assert (pull.view(-1)[:2] < 0).all()
        assert not pull.view(-1)[2:].any()


class TestRaisedPeak:
    def test_all_logits_move_by_the_same_number(self) -> None:
        mask = torch.tensor([[[0.2, 0.1, 0.02]]])
        raised = raise_peak(mask, 0.8)
        assert float(raised.max()) == pytest.approx(0.8, abs=1e-5)
        moved = torch.logit(raised) - torch.logit(mask)
        assert torch.allclose(moved, moved[0, 0, 0].expand_as(moved), atol=1e-4)

    @pytest.mark.parametrize("highest", [0.51, 0.9, LESION_PRIOR - 0.01, 0.0])
    def test_a_lesion_that_is_found_or_not_even_suspected_stays(self, highest: float) -> None:
        mask = torch.tensor([[[highest, 0.0]]])
        assert torch.equal(raise_peak(mask, 0.8), mask)
