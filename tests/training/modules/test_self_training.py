"""Self-training: what the label lets through, and who the teacher is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from dxseg.config.network import ModelConfig
from dxseg.config.stages import SelfTrainingConfig
from dxseg.models.factory import Task
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.training.losses import LabelLoss
from dxseg.training.modules.self_training import EVIDENCE_CUT, SelfTrainingModule
from dxseg.training.pseudo_labels import keep_largest

HEALTHY, BENIGN, MALIGNANT = 0, 1, 2
TASK = Task(channels=1, mask_classes=1, labels=3, lesion_free=(HEALTHY,))


class Constant(SegmentationModel):
    """Answers with the image itself as logits, times a weight, and with given evidence."""

    def __init__(self, evidence: Tensor | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.given = evidence

    @property
    def encoder(self) -> torch.nn.Module:
        return torch.nn.Identity()

    def _forward_padded(self, x: Tensor, *_: Any) -> SegmenterOutput:
        return SegmenterOutput(self.weight * x, None, self.given)


class Leveled(SegmentationModel):
    """Logits are the mean of eight copies of the image, which an encoder returns as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.encoder = Copies()
        self.encoded: list[int] = []

    def _forward_padded(self, x: Tensor, *_: Any) -> SegmenterOutput:
        [level] = self.encoder(x)
        if self.training:
            self.encoded.append(int(level[0].flatten(1).any(dim=1).sum()))
        return SegmenterOutput(self.weight * level.mean(dim=1, keepdim=True))


class Copies(torch.nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x.expand(-1, 8, -1, -1)]


class Labelled(Constant):
    """The same with label logits, the same for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = torch.nn.Parameter(torch.tensor([0.0, 1.0, 2.0]))

    def _forward_padded(self, x: Tensor, *_: Any) -> SegmenterOutput:
        return SegmenterOutput(self.weight * x, self.labels.expand(len(x), 3))


def module(segmenter: SegmentationModel, **options: Any) -> SelfTrainingModule:
    config = SelfTrainingConfig(**options)
    return SelfTrainingModule(segmenter, ModelConfig(), config, TASK, prompt_teacher=False)


def flat(probability: float) -> Tensor:
    return torch.full((1, 32, 32), float(torch.logit(torch.tensor(probability))))


class TestProposals:
    @pytest.mark.parametrize(
        ("label", "probability", "kept"),
        [
            (BENIGN, 0.9, True),
            (MALIGNANT, 0.61, True),
            (BENIGN, 0.59, False),
            (MALIGNANT, 0.01, False),  # the label says that there is a lesion: "none" is wrong
            (-1, 0.9, True),
            (-1, 0.5, False),
            (-1, 0.01, True),  # sure of none, and no label against it
        ],
    )
    def test_the_label_filters(self, label: int, probability: float, kept: bool) -> None:
        images = flat(probability)[None]
        proposals, keep = module(Constant()).make_pseudo_labels(images, torch.tensor([label]))
        assert keep.tolist() == [kept]
        torch.testing.assert_close(proposals, torch.full((1, 1, 32, 32), probability))

    @pytest.mark.parametrize(("lesion", "kept"), [(0.9, True), (0.5, False), (0.01, False)])
    def test_an_organ_that_is_found_is_not_the_lesion_of_a_label(
        self, lesion: float, kept: bool
    ) -> None:
        training = module(Constant())
        training.task = replace(TASK, mask_classes=2, organs=(0,))
        images = torch.cat([flat(0.9), flat(lesion)])[None]
        _, keep = training.make_pseudo_labels(images, torch.tensor([BENIGN]))
        assert keep.tolist() == [kept]

    def test_no_image_without_a_mask(self) -> None:
        proposals, keep = module(Constant()).make_pseudo_labels(
            torch.zeros(0, 1, 32, 32), torch.zeros(0)
        )
        assert proposals.shape == (0, 1, 32, 32)
        assert keep.shape == (0,)

    def test_evidence_and_network_multiply(self) -> None:
        """Both experts' odds, evidence to a power and measured from the cut."""
        evidence = torch.full((1, 3, 8, 8), 0.0)
        evidence[:, BENIGN], evidence[:, MALIGNANT] = 0.3, 0.5
        evidence[:, HEALTHY] = 0.9  # says nothing about lesions
        images = flat(0.4)[None]
        proposals, _ = module(Constant(evidence), evidence_weight=0.5).make_pseudo_labels(
            images, torch.tensor([BENIGN])
        )
        excess = np.log(0.8 / 0.2) - EVIDENCE_CUT
        expected = np.log(0.4 / 0.6) + 0.5 * excess
        assert proposals.flatten()[0].item() == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-5)
        alone, _ = module(Constant(evidence), evidence_weight=0.0).make_pseudo_labels(
            images, torch.tensor([BENIGN])
        )
        assert alone.flatten()[0].item() == pytest.approx(0.4, abs=1e-5)

    @pytest.mark.parametrize("label", [BENIGN, HEALTHY, -1])
    @pytest.mark.parametrize(("probability", "kept"), [(0.9, True), (0.5, False), (0.01, True)])
    def test_without_the_filter_the_label_means_nothing(
        self, label: int, probability: float, kept: bool
    ) -> None:
        training = module(Constant(), label_filter=False)
        _, keep = training.make_pseudo_labels(flat(probability)[None], torch.tensor([label]))
        assert keep.tolist() == [kept]


def test_the_largest_component_is_kept() -> None:
    masks = torch.zeros(2, 2, 8, 8, dtype=torch.bool)
    masks[0, 0, 0, :3] = masks[0, 0, 4:, 4:] = masks[1, 1, 2, 2] = True
    kept = keep_largest(masks)
    assert torch.equal(kept[0, 0, 4:, 4:], masks[0, 0, 4:, 4:])
    assert not kept[0, 0, 0].any()
    assert torch.equal(kept[1], masks[1])


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
class TestSteps:
    """One image with a mask, two without: a lesion that is found, and one that is not."""

    def batch(self, *values: float, label: int = BENIGN) -> Any:
        images = torch.stack([flat(value) for value in values])
        count = len(values)
        mask = torch.zeros(count, 1, 32, 32)
        mask[0, :, :8] = 1
        return {
            "image": images,
            "strong_views": images[:, None].clone(),
            "replaced": torch.zeros(count, 1, 1, 32, 32, dtype=torch.bool),
            "mask": mask,
            "masked": torch.arange(count) == 0,
            "label": torch.tensor([HEALTHY] + [label] * (count - 1)),
            "label_prompt": torch.full((count,), -1),
        }

    def gradients(self, batch: Any, **options: Any) -> Tensor:
        """Of the loss, by pixel of what the student sees: darker than what its teacher sees.

        Of the same view, soft pseudo-labels would be learned already.
        """
        batch["strong_views"] = (batch["strong_views"] - 1).requires_grad_()
        module(Constant(), **options).training_step(batch, 0).backward()
        return cast(Tensor, batch["strong_views"].grad)[:, 0, 0]

    def test_an_image_that_is_refused_gives_no_gradient(self) -> None:
        pull = self.gradients(self.batch(0.3, 0.9, 0.2))
        assert pull[1].all()
        assert not pull[2].any()

    def test_nor_does_a_pixel_below_the_confidence(self) -> None:
        batch = self.batch(0.3, 0.9)
        batch["image"][1, :, :, :4] = 4.0  # a probability of 0.98
        pull = self.gradients(batch, pixel_confidence=0.95)
        assert pull[1, :, :4].all()
        assert not pull[1, :, 4:].any()

    def test_what_is_pasted_into_another_image_teaches_there(self) -> None:
        """The box of the refused image shows the other one, and that box alone is learned from."""
        batch = self.batch(0.3, 0.9, 0.2)
        batch["replaced"][2, :, :, :8, :8] = True
        module_ = module(Constant(), mix="cutmix")
        seen: list[Tensor] = []
        module_.segmenter.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        module_.training_step(batch, 0)
        [student] = seen
        assert torch.equal(student[2, :, :8, :8], batch["image"][1, :, :8, :8])
        pull = self.gradients(
            self.batch(0.3, 0.9, 0.2) | {"replaced": batch["replaced"]}, mix="cutmix"
        )
        assert not pull[2].any(), "the pixels of the refused image are nowhere learned from"
        assert (pull[1, :8, :8].abs() > pull[1, 8:, 8:].abs().max()).all(), "seen twice"

    def test_copy_paste_has_the_true_mask_in_the_other_image(self) -> None:
        """A lesion that the network misses is pasted: its pixels pull the logits up."""
        batch = self.batch(0.3, 0.2)
        batch["replaced"][1, :, :, :4] = True
        batch["strong_views"].requires_grad_()
        batch["image"].requires_grad_()
        module(Constant(), mix="copy-paste").training_step(batch, 0).backward()
        pull = batch["image"].grad[0, 0]
        assert (pull[:4] < 0).all(), "learned from where they were pasted"
        assert not batch["strong_views"].grad[1, 0, 0].any(), "the refused image teaches nowhere"

    def test_hard_pseudo_labels_are_zero_and_one(self) -> None:
        """At a logit of 4.6 soft labels ask for no change, hard ones for more."""
        soft, hard = (
            self.gradients(self.batch(0.3, 0.99), hard_pseudo_labels=hard)[1]
            for hard in (False, True)
        )
        assert (hard < soft).all()

    def test_every_view_counts_alike(self) -> None:
        """Two equal views are the loss of one; another second view moves it."""
        one, two = self.batch(0.3, 0.9), self.batch(0.3, 0.9)
        for name in ("strong_views", "replaced"):
            two[name] = torch.cat([two[name], two[name]], dim=1)
        training = module(Constant(), strong_views=2)
        single, double = (training.training_step(batch, 0).item() for batch in (one, two))
        assert single == pytest.approx(double, abs=1e-5)
        two["strong_views"][1, 1] = 0
        assert training.training_step(two, 0).item() > single + 0.01

    def test_features_are_dropped_in_a_view_of_the_weak_image(self) -> None:
        torch.manual_seed(0)
        batch = self.batch(0.3, 0.9, 0.95)
        network = Leveled()
        training = module(network, feature_dropout=0.5)
        seen: list[Tensor] = []
        network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        batch["strong_views"] = batch["strong_views"] + 1
        training.training_step(batch, 0)
        strong, weak = seen
        assert torch.equal(strong[1:], batch["strong_views"][1:, 0])
        assert torch.equal(weak, batch["image"][1:])
        all_channels, some = network.encoded
        assert all_channels == 8
        assert 0 < some < 8

    def test_a_process_without_weak_images_runs_that_view_too(self) -> None:
        """The batch norms of the others wait for it; it adds nothing to the loss."""
        network = Leveled()
        passes: list[int] = []
        network.register_forward_hook(lambda *_: passes.append(1))
        batch = self.batch(0.3)
        with_view = module(network, feature_dropout=0.5).training_step(batch, 0).item()
        assert len(passes) == 2
        assert with_view == module(network).training_step(batch, 0).item()

    @pytest.mark.parametrize("label_filter", [True, False])
    def test_labels_are_read_by_the_filter_alone(self, label_filter: bool) -> None:
        """Whatever the labels of images without a mask are, the step is the same without it."""
        options: Any = {"label_filter": label_filter, "mix": "copy-paste", "pixel_confidence": 0.9}
        losses = set()
        for label in (HEALTHY, BENIGN, MALIGNANT, -1):
            batch = self.batch(0.3, 0.05, 0.97, label=label)
            losses.add(module(Constant(), **options).training_step(batch, 0).item())
        assert len(losses) == (2 if label_filter else 1)


class TestTeacher:
    def test_it_is_the_moving_average_of_the_student(self) -> None:
        student = Constant()
        training = module(student, ema_decay=0.9)
        optimizer = torch.optim.SGD([student.weight])
        expected = 1.0
        for step, value in enumerate((1.0, 2.0, 5.0)):

            def closure(value: float = value) -> None:
                student.weight.data.fill_(value)

            training.optimizer_step(0, step, optimizer, closure)
            expected = value if step == 0 else 0.9 * expected + 0.1 * value
        assert isinstance(training.teacher, Constant)
        assert training.teacher.weight.item() == pytest.approx(expected)

    def test_it_neither_learns_nor_trains(self) -> None:
        training = module(Constant()).train()
        assert training.segmenter.training
        assert not training.teacher.training
        assert not any(p.requires_grad for p in training.teacher.parameters())


@pytest.mark.parametrize(("hard", "best"), [(False, "as it is"), (True, "rounded")])
def test_pseudo_labels_that_are_probabilities_are_learnt_as_they_are(hard: bool, best: str) -> None:
    """Plain Dice would rather have them rounded; those that are cut need no other form."""
    target = torch.tensor([[0.9, 0.6], [0.3, 0.1]])[None, None]
    rounded = (target > 0.5).float() * 0.98 + 0.01
    dice = module(Constant(), hard_pseudo_labels=hard).loss.dice
    losses = {"as it is": float(dice(target, target)), "rounded": float(dice(rounded, target))}
    assert min(losses, key=lambda name: losses[name]) == best


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_a_label_head_of_its_own_goes_on_learning() -> None:
    """Beside the masks: the loss is larger by the cross-entropy of the labels, -1 left out."""
    images = torch.stack([flat(0.9), flat(0.2), flat(0.7)])
    label = torch.tensor([BENIGN, HEALTHY, -1])
    batch: Any = {
        "image": images,
        "strong_views": images[:, None],
        "replaced": torch.zeros(3, 1, 1, 32, 32, dtype=torch.bool),
        "mask": torch.ones(3, 1, 32, 32),
        "masked": torch.tensor([True, True, True]),
        "label": label,
        "label_prompt": torch.full((3,), -1),
    }
    losses = []
    for label_loss in (None, LabelLoss(torch.ones(3), multi_label=False)):
        network = Labelled()
        training = SelfTrainingModule(
            network,
            ModelConfig(architecture="unet", label_head=True),
            SelfTrainingConfig(),
            TASK,
            prompt_teacher=False,
            label_loss=label_loss,
        )
        losses.append(training.training_step(batch, 0))
        losses[-1].backward()
        assert (network.labels.grad is not None) == (label_loss is not None)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor([[0.0, 1.0, 2.0]] * 2), torch.tensor([BENIGN, HEALTHY])
    )
    assert (losses[1] - losses[0]).item() == pytest.approx(expected.item(), abs=1e-5)
