"""What only the dual-U network promises: frozen parts, evidence, and a start from stage 1."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dxseg.models import SKS, CoarseBranch, EvidencePrompt, LongSkip
from dxseg.models.shared_encoder import EncoderTail

SIZES: dict[str, Any] = {"in_channels": 1, "decoder_channels": (16, 16, 8, 8, 8)}
BACKBONE = "mobilenetv3_small_050"


def built(**options: Any) -> SKS:
    torch.manual_seed(0)
    options = {"prompts": (LongSkip, EvidencePrompt), **options}
    return SKS(BACKBONE, 3, **SIZES, encoder_weights=None, coarse_weights=None, **options)


def classifier(**options: Any) -> CoarseBranch:
    torch.manual_seed(5)
    return CoarseBranch(BACKBONE, 3, **SIZES, encoder_weights=None, **options)


def images(count: int) -> Tensor:
    return torch.randn(count, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


class TestFreezing:
    def test_a_frozen_coarse_branch_learns_nothing(self) -> None:
        segmenter = built().train()
        before = {name: tensor.clone() for name, tensor in segmenter.coarse.state_dict().items()}
        trainable = [p for p in segmenter.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trainable, lr=0.1)
        segmenter(images(4)).mask_logits.square().mean().backward()
        optimizer.step()
        assert all(parameter.grad is None for parameter in segmenter.coarse.parameters())
        after = segmenter.coarse.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)  # statistics too

    def test_the_fine_branch_moves_its_statistics(self) -> None:
        segmenter = built().train()
        before = {n: t.clone() for n, t in segmenter.encoder.named_buffers() if "mean" in n}
        segmenter(images(4))
        after = dict(segmenter.encoder.named_buffers())
        assert all(not torch.equal(before[name], after[name]) for name in before)

    def test_frozen_stays_in_evaluation_mode_through_train_and_eval(self) -> None:
        outer = nn.Sequential(built())
        for mode in (True, False, True):
            outer.train(mode)
            assert not any(module.training for module in outer[0].coarse.modules())
            assert outer[0].encoder.training is mode

    def test_a_fine_tuned_coarse_branch_learns(self) -> None:
        segmenter = built(freeze_coarse=False).train()
        assert segmenter.coarse.training
        segmenter(images(4)).mask_logits.square().mean().backward()
        silent = {n for n, p in segmenter.coarse.named_parameters() if p.grad is None}
        # Also the image-level heads: the evidence depends on them.
        assert silent == set()


class TestEvidence:
    def test_never_exceeds_the_probability_of_the_label(self) -> None:
        with torch.no_grad():
            out = built().eval()(images(2))
        assert out.evidence is not None
        assert out.label_logits is not None
        present = out.label_logits.softmax(dim=1)[:, :, None, None]
        assert tuple(out.evidence.shape) == (2, 3, 16, 16)
        assert ((out.evidence >= 0) & (out.evidence <= present)).all()

    def test_of_several_labels_is_one_probability_each(self) -> None:
        segmenter = built(multi_label=True).eval()
        with torch.no_grad():
            out = segmenter(images(2))
        present = out.label_logits.sigmoid()[:, :, None, None]
        assert (out.evidence <= present).all()
        # Independent labels: together they may exceed what one label could have.
        assert not torch.allclose(present.sum(dim=1), torch.ones(2, 1, 1), atol=1e-2)


class TestFromClassifier:
    def test_both_branches_start_from_copies(self) -> None:
        stage1 = classifier(lesion_free=(0,))
        network = SKS.from_classifier(stage1, classes=2)
        assert same(network.coarse, stage1)
        assert same(network.encoder, stage1.encoder)
        assert network.coarse.lesion_free == (0,)
        assert network(images(1)).mask_logits.shape == (1, 2, 64, 64)
        network.encoder.body.conv_stem.weight.data.zero_()
        network.coarse.global_head.weight.data.zero_()
        assert stage1.encoder.body.conv_stem.weight.any()  # a copy, not the same memory
        assert stage1.global_head.weight.any()

    def test_labels_are_predicted_as_by_the_classifier(self) -> None:
        stage1 = classifier(multi_label=True).eval()
        network = SKS.from_classifier(stage1).eval()
        with torch.no_grad():
            wanted, found = stage1(images(2)).label_logits, network(images(2)).label_logits
        assert torch.equal(found, wanted)
        assert network.coarse.multi_label

    def test_options_are_those_of_the_network(self) -> None:
        stage1 = classifier()
        network = SKS.from_classifier(stage1, shared_encoder_levels=2, prompts=(), fusion=None)
        assert same(network.encoder, EncoderTail(stage1.encoder, 2))
        assert list(network.prompts) == []
        assert network.share is None

    def test_weights_are_loaded_as_a_state_dict_too(self) -> None:
        stage1, network = classifier(), built()
        assert not same(network.coarse, stage1)
        network.coarse.load_state_dict(stage1.state_dict())
        assert same(network.coarse, stage1)


@pytest.mark.parametrize(("weights", "called"), [("imagenet", 1), (None, 0)])
def test_pretrained_weights_are_loaded_where_they_are_named(
    weights: Any, called: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr("dxseg.models.weights.load_pretrained", loaded.append)
    network = SKS(BACKBONE, 3, **SIZES, encoder_weights=weights, coarse_weights=None)
    assert loaded == [network.encoder] * called
    loaded.clear()
    network = SKS(BACKBONE, 3, **SIZES, encoder_weights=None, coarse_weights=weights)
    assert loaded == [network.coarse.encoder] * called
