"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dxseg.training.losses import LabelLoss, MaskLoss, label_balance

NAN = float("nan")


class TestBalance:
    def test_inverse_frequency_with_mean_one_over_images(self) -> None:
        labels = np.array([0] * 6 + [1] * 3 + [2] * 1 + [-1] * 5)
        balance = label_balance(labels, 3, multi_label=False)
        assert balance.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
        assert balance.dtype == torch.float32

    def test_a_label_that_never_occurs_weighs_one(self) -> None:
        balance = label_balance(np.array([0, 0, 2, 2]), 4, multi_label=False)
        assert balance.tolist() == pytest.approx([1, 1, 1, 1])

    @given(st.lists(st.integers(-1, 4), min_size=1, max_size=80))
    @settings(deadline=None)
    def test_every_label_that_occurs_gets_the_same_say(self, drawn: list[int]) -> None:
        labels = np.array(drawn)
        balance = label_balance(labels, 5, multi_label=False).numpy()
        counts = np.bincount(labels[labels >= 0], minlength=5)
        say = (balance * counts)[counts > 0]
        assert np.allclose(say, say.mean() if len(say) else 0)
        if len(say):
            assert balance[labels[labels >= 0]].mean() == pytest.approx(1, rel=1e-5)

    def test_multi_label_weighs_positives_by_negatives(self) -> None:
        labels = np.array([[1, 0], [0, 0], [0, 0], [0, 0], [NAN, NAN]], np.float32)
        assert label_balance(labels, 2, multi_label=True).tolist() == pytest.approx([3, 1])

    def test_multi_label_weights_stay_within_bounds(self) -> None:
        labels = np.zeros((1000, 2), np.float32)
        labels[0, 0] = labels[:, 1] = 1
        assert label_balance(labels, 2, multi_label=True).tolist() == pytest.approx([10, 0.1])

    def test_no_label_known_at_all(self) -> None:
        unknown = np.full((3, 2), np.nan, np.float32)
        assert label_balance(unknown, 2, multi_label=True).tolist() == [1, 1]
        assert label_balance(np.full(3, -1), 2, multi_label=False).tolist() == [1, 1]


class TestLabelLoss:
    def test_cross_entropy_by_hand(self) -> None:
        logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
        loss = LabelLoss(torch.tensor([1.0, 2.0]), multi_label=False)
        # -log(3/4) with weight 2, -log(1/2) with weight 1, divided by the sum of weights.
        wanted = (2 * math.log(4 / 3) + math.log(2)) / 3
        assert float(loss(logits, torch.tensor([1, 0]))) == pytest.approx(wanted)

    def test_images_without_a_label_do_not_count(self) -> None:
        loss = LabelLoss(torch.ones(3), multi_label=False)
        logits = torch.randn(4, 3)
        part = loss(logits[:2], torch.tensor([0, 2]))
        assert float(loss(logits, torch.tensor([0, 2, -1, -1]))) == pytest.approx(float(part))

    def test_multi_label_by_hand(self) -> None:
        loss = LabelLoss(torch.tensor([3.0, 1.0]), multi_label=True)
        got = loss(torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]]))
        assert float(got) == pytest.approx((3 * math.log(2) + math.log(4)) / 2)

    def test_multi_label_rows_of_nan_do_not_count(self) -> None:
        loss = LabelLoss(torch.ones(2), multi_label=True)
        logits = torch.randn(3, 2, requires_grad=True)
        target = torch.tensor([[1.0, 0.0], [NAN, NAN], [0.0, 1.0]])
        value = loss(logits, target)
        assert float(value.detach()) == pytest.approx(
            float(loss(logits[[0, 2]], target[[0, 2]]).detach())
        )
        value.backward()
        assert logits.grad is not None
        assert logits.grad[1].tolist() == [0, 0]

    @pytest.mark.parametrize(
        ("multi_label", "target"),
        [(False, torch.tensor([-1, -1])), (True, torch.full((2, 3), NAN))],
    )
    def test_a_batch_of_unknowns_teaches_nothing(
        self, multi_label: bool, target: torch.Tensor
    ) -> None:
        logits = torch.randn(2, 3, requires_grad=True)
        value = LabelLoss(torch.ones(3), multi_label)(logits, target)
        value.backward()
        assert float(value.detach()) == 0
        assert logits.grad is not None
        assert not logits.grad.any()

    def test_smoothing_spreads_the_target(self) -> None:
        logits = torch.tensor([[2.0, -1.0]])
        log_p = logits.log_softmax(1)[0]
        wanted = -(0.9 * log_p[0] + 0.1 * log_p[1])
        loss = LabelLoss(torch.ones(2), multi_label=False, label_smoothing=0.2)
        assert float(loss(logits, torch.tensor([0]))) == pytest.approx(float(wanted))
        several = LabelLoss(torch.ones(2), multi_label=True, label_smoothing=0.2)
        hard = LabelLoss(torch.ones(2), multi_label=True)
        soft_target = torch.tensor([[0.9, 0.1]])
        got = several(logits, torch.tensor([[1.0, 0.0]]))
        assert float(got) == pytest.approx(float(hard(logits, soft_target)))


class TestMaskLoss:
    def test_by_hand(self) -> None:
        """Four pixels at p = 0.75, 0.5, 0.5, 0.25 against 1, 1, 0, 0."""
        p = torch.tensor([[0.75, 0.5], [0.5, 0.25]])[None, None]
        target = torch.tensor([[1.0, 1.0], [0.0, 0.0]])[None, None]
        dice = 1 - (2 * 1.25) / (2.0 + 2.0)
        entropy = -(2 * math.log(0.75) + 2 * math.log(0.5)) / 4
        assert float(MaskLoss()(torch.logit(p), target)) == pytest.approx(dice + entropy, abs=1e-4)

    def test_dice_is_taken_over_the_batch(self) -> None:
        """One image full, one empty: over the batch half of the prediction is right."""
        logits = torch.full((2, 1, 8, 8), 30.0)
        target = torch.zeros(2, 1, 8, 8)
        target[0] = 1
        entropy = 15.0  # half of the pixels are wrong by 30
        dice = 1 - 2 * 64 / (128 + 64)
        assert float(MaskLoss()(logits, target)) == pytest.approx(dice + entropy, abs=1e-3)

    def test_right_is_nothing_and_wrong_is_much(self) -> None:
        target = (torch.rand(2, 3, 16, 16) > 0.7).float()
        assert float(MaskLoss()((target * 2 - 1) * 50, target)) < 1e-3
        assert float(MaskLoss()((1 - target * 2) * 50, target)) > 50

    def test_empty_masks_still_teach(self) -> None:
        logits = torch.zeros(2, 1, 8, 8, requires_grad=True)
        MaskLoss()(logits, torch.zeros(2, 1, 8, 8)).backward()
        assert logits.grad is not None
        assert (logits.grad > 0).all()  # lowers every pixel

    def test_each_mask_class_counts_alike(self) -> None:
        target = torch.zeros(1, 2, 8, 8)
        target[:, 0] = 1  # large
        target[:, 1, 0, 0] = 1  # one pixel
        missed = []
        for index in range(2):
            logits = (target * 2 - 1) * 50
            logits[:, index] = -50
            entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
            missed.append(float(MaskLoss()(logits, target) - entropy))
        assert missed[0] == pytest.approx(missed[1], abs=1e-3) == pytest.approx(0.5, abs=1e-3)

    def test_of_some_pixels_it_is_the_loss_of_an_image_of_these(self) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(2, 1, 8, 8, generator=generator).requires_grad_()
        target = (torch.rand(2, 1, 8, 8, generator=generator) > 0.5).float()
        known = torch.zeros_like(target, dtype=torch.bool)
        known[:, :, 2:6, 1:4] = True
        part = MaskLoss()(logits, target, known)
        crop = MaskLoss()(logits[:, :, 2:6, 1:4], target[:, :, 2:6, 1:4])
        assert float(part.detach()) == pytest.approx(float(crop.detach()), abs=1e-5)
        part.backward()
        assert logits.grad is not None
        assert torch.equal(logits.grad != 0, known)

    def test_of_all_pixels_it_is_the_loss_of_the_image_and_of_none_it_is_zero(self) -> None:
        logits, target = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
        everywhere = torch.ones_like(target, dtype=torch.bool)
        whole = float(MaskLoss()(logits, target))
        assert float(MaskLoss()(logits, target, everywhere)) == pytest.approx(whole, abs=1e-5)
        assert float(MaskLoss()(logits, target, ~everywhere)) == 0

    def test_soft_targets_are_learnt_as_they_are(self) -> None:
        """Plain Dice would rather have them rounded."""
        target = torch.tensor([[0.9, 0.6], [0.3, 0.1]])[None, None]
        candidates = {
            "as it is": target,
            "rounded": (target > 0.5).float() * 0.98 + 0.01,
            "pale": target / 2,
        }
        soft, hard = MaskLoss(soft_targets=True), MaskLoss()
        dice = {
            name: (
                float(soft.dice(p, target)),
                float(hard.dice(p, target)),
            )
            for name, p in candidates.items()
        }
        assert dice["as it is"][0] == pytest.approx(0, abs=1e-4)
        assert min(dice, key=lambda name: dice[name][0]) == "as it is"
        assert min(dice, key=lambda name: dice[name][1]) == "rounded"

    def test_on_masks_of_zero_and_one_both_forms_are_equal(self) -> None:
        torch.manual_seed(0)
        logits, target = torch.randn(2, 2, 8, 8), (torch.rand(2, 2, 8, 8) > 0.7).float()
        assert float(MaskLoss(soft_targets=True)(logits, target)) == pytest.approx(
            float(MaskLoss()(logits, target)), abs=1e-5
        )
