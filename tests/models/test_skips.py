"""Each skip is what its formula says, is built or absent, and reaches the output when built."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dxseg.config.presets import load_config
from dxseg.errors import UsageError
from dxseg.models import SKS, CoarseBranch, CoarseOutput, EvidencePrompt, FeatureFusion, LongSkip
from dxseg.models.coarse_branch import logmeanexp
from dxseg.models.factory import Task, build_model
from plain_backbone import small_swin

CHANNELS, STRIDES = (4, 6, 8), (8, 16, 32)


def pyramid(seed: int, side: int = 64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, channels, side // stride, side // stride, generator=generator)
        for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    ]


def coarse_branch(strides: tuple[int, ...], decoder: dict[int, int], labels: int = 3) -> Any:
    """What a prompt reads of a coarse branch."""
    return SimpleNamespace(
        encoder=SimpleNamespace(strides=strides),
        decoder=SimpleNamespace(channels=decoder),
        labels=labels,
    )


def coarse_output(labels: int = 3) -> CoarseOutput:
    features = pyramid(1)
    return CoarseOutput(
        encoder_features=features,
        decoder_features={16: torch.randn(2, 5, 4, 4), 8: torch.randn(2, 3, 8, 8)},
        evidence_logits=torch.randn(2, labels, 8, 8),
        global_logits=torch.zeros(2, labels),
        pooled_logits=torch.zeros(2, labels),
    )


def fuse(fusion: nn.Module, fine: list[Tensor], coarse: list[Tensor]) -> list[Tensor]:
    pairs = zip(fine, coarse, strict=True)
    return [fusion(s, c, level) for level, (s, c) in enumerate(pairs)]


class TestFeatureShare:
    def test_starts_as_exactly_the_mean(self) -> None:
        fine, coarse = pyramid(0), pyramid(1)
        fused = fuse(FeatureFusion(CHANNELS), fine, coarse)
        for g, s, c in zip(fused, fine, coarse, strict=True):
            assert torch.allclose(g, (s + c) / 2, atol=1e-6)

    def test_is_the_papers_formula(self) -> None:
        """At every pixel f_fuse = W (f_i, f_k) + b with W of size C x 2C."""
        skip = FeatureFusion(CHANNELS)
        generator = torch.Generator().manual_seed(3)
        fine, coarse = pyramid(0), pyramid(1)
        for fusion in skip.fusions:
            fusion.weight.data.normal_(generator=generator)
            fusion.bias.data.normal_(generator=generator)
        fused = fuse(skip, fine, coarse)
        for level, channels in enumerate(CHANNELS):
            weight = skip.fusions[level].weight[:, :, 0, 0]
            assert weight.shape == (channels, 2 * channels)
            for row, column in [(0, 0), (1, 1)]:
                stacked = torch.cat(
                    [fine[level][0, :, row, column], coarse[level][0, :, row, column]]
                )
                wanted = weight @ stacked + skip.fusions[level].bias
                assert torch.allclose(fused[level][0, :, row, column], wanted, atol=1e-4)

    def test_both_branches_get_gradients(self) -> None:
        fine = [level.requires_grad_() for level in pyramid(0)]
        coarse = [level.requires_grad_() for level in pyramid(1)]
        sum(level.sum() for level in fuse(FeatureFusion(CHANNELS), fine, coarse)).backward()
        assert all(torch.allclose(t.grad, torch.full_like(t, 0.5)) for t in [*fine, *coarse])

    def test_left_out_it_changes_nothing(self) -> None:
        fine, _, skips = levels(build(False, False, True, True))
        assert all(torch.equal(a, b) for a, b in zip(skips, fine, strict=True))
        assert build(False, False, True, True).share is None


class TestResolutionCompensation:
    def test_the_decoder_gets_the_fused_features_everywhere(self) -> None:
        network = build(True, True, True, True)
        fine, coarse, skips = levels(network)
        assert len(skips) == 5
        for s, c, g in zip(fine, coarse, skips, strict=True):
            assert torch.allclose(g, (s + c) / 2, atol=1e-5)
            assert not torch.equal(g, s)

    def test_left_out_only_the_deepest_level_is_fused(self) -> None:
        network = build(True, False, True, True)
        fine, coarse, skips = levels(network)
        unchanged = [torch.equal(g, s) for g, s in zip(skips, fine, strict=True)]
        assert unchanged == [True, True, True, True, False]
        assert torch.allclose(skips[-1], (fine[-1] + coarse[-1]) / 2, atol=1e-5)

    def test_needs_the_feature_share(self) -> None:
        with pytest.raises(UsageError, match="feature_share"):
            load_config("cpu", "sks", {"model": {"skips": {"feature_share": False}}})


class TestFusionInTheEncoder:
    """The reading in which the fine encoder goes on from the fused features (`fuse_in_encoder`)."""

    BACKBONES = ("mobilenetv3_small_050", "resnet18", small_swin.__name__)

    def pair(self, backbone: str) -> tuple[SKS, SKS]:
        """One network with fusion after and one with fusion in the encoder, of equal weights."""
        torch.manual_seed(0)
        sizes: Any = {"in_channels": 1, "decoder_channels": (16, 16, 8, 8, 8)}
        classifier = CoarseBranch(backbone, 3, encoder_weights=None, **sizes).eval()
        after = SKS.from_classifier(classifier).eval()
        inside = SKS.from_classifier(classifier, fuse_in_encoder=True).eval()
        inside.decoder.load_state_dict(after.decoder.state_dict())
        inside.head.load_state_dict(after.head.state_dict())
        return after, inside

    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_starts_as_the_same_function(self, backbone: str) -> None:
        """At first both encoders are equal, and the mean of equal features is the feature."""
        after, inside = self.pair(backbone)
        x = torch.randn(1, 1, 64, 64)
        with torch.no_grad():
            assert torch.allclose(after(x).mask_logits, inside(x).mask_logits, atol=1e-4)

    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_a_coarse_level_reaches_the_stages_behind_it(self, backbone: str) -> None:
        for network, reaches in zip(self.pair(backbone), (False, True), strict=True):
            x = torch.randn(1, 1, 64, 64)
            with torch.no_grad():
                before = network(x).features
                hook = network.coarse.register_forward_hook(
                    lambda _, __, out: replace(
                        out, encoder_features=[c + 1 for c in out.encoder_features]
                    )
                )
                changed = network(x).features
                hook.remove()
            assert before is not None
            assert changed is not None
            assert torch.allclose(before, changed, atol=1e-6) is not reaches

    def test_shared_levels_come_before_it(self) -> None:
        network = SKS(
            "resnet18",
            labels=2,
            shared_encoder_levels=2,
            fuse_in_encoder=True,
            encoder_weights=None,
            coarse_weights=None,
        )
        network(torch.randn(2, 3, 64, 64)).mask_logits.sum().backward()
        assert [p.grad for p in network.share.parameters() if p.grad is None] == []

    @pytest.mark.parametrize("options", [{"fusion": None}, {"resolution_compensation": False}])
    def test_needs_fused_features_at_every_level(self, options: Any) -> None:
        with pytest.raises(UsageError, match="fuse_in_encoder"):
            SKS("resnet18", labels=2, fuse_in_encoder=True, encoder_weights=None, **options)
        skips = {"fuse_in_encoder": True, "resolution_compensation": False}
        with pytest.raises(UsageError, match="switch resolution_compensation on"):
            load_config("cpu", "sks", {"model": {"skips": skips}})


class TestPrompts:
    def test_long_skip_brings_the_coarse_decoder_at_its_strides(self) -> None:
        coarse = coarse_output()
        skip = LongSkip(coarse_branch(STRIDES, {16: 5, 8: 3}))
        assert skip.channels == [3, 5, 0]
        skips = skip(coarse, torch.zeros(0))
        assert [[t.shape[1] for t in level] for level in skips] == [[3], [5], []]
        assert skips[0][0] is coarse.decoder_features[8]
        assert skips[1][0] is coarse.decoder_features[16]

    def test_evidence_is_averaged_down_to_each_level(self) -> None:
        evidence = torch.rand(2, 3, 16, 16)  # at stride 4, as the coarse branch gives it
        prompt = EvidencePrompt(coarse_branch((4, *STRIDES), {}))
        assert prompt.channels == [3, 3, 3, 3]
        resized = [level[0] for level in prompt(coarse_output(), evidence)]
        assert [t.shape[-1] for t in resized] == [16, 8, 4, 2]
        assert torch.equal(resized[0], evidence)
        wanted = evidence.reshape(2, 3, 8, 2, 8, 2).mean(dim=(3, 5))
        assert torch.allclose(resized[1], wanted, atol=1e-6)
        # A distribution over labels stays one.
        halves = evidence.softmax(dim=1)
        averaged = prompt(coarse_output(), halves)[-1][0]
        assert torch.allclose(averaged.sum(dim=1), torch.ones(2, 2, 2), atol=1e-5)

    def test_evidence_is_interpolated_up_to_a_finer_level(self) -> None:
        ramp = torch.linspace(0, 1, 4)[None, None, None].expand(2, 3, 4, 4)
        finest = EvidencePrompt(coarse_branch((2, 4), {}))(coarse_output(), ramp)[0][0]
        assert tuple(finest.shape) == (2, 3, 8, 8)
        across = finest[0, 0, 0]
        assert (across.diff() >= 0).all()
        assert len(across.unique()) > 4


SWITCHES = [
    switches
    for switches in itertools.product([True, False], repeat=4)
    if switches[0] or not switches[1]
]
"""(feature_share, resolution_compensation, long, evidence) that may be combined."""


def build(feature_share: bool, compensation: bool, long: bool, evidence: bool) -> SKS:
    skips = {
        "feature_share": feature_share,
        "resolution_compensation": compensation,
        "long": long,
        "evidence": evidence,
    }
    model = {
        "backbone": "mobilenetv3_small_050",
        "decoder_channels": [16, 16, 8, 8, 8],
        "skips": skips,
    }
    torch.manual_seed(0)
    config = load_config("cpu", "sks-evidence", {"model": model}).model
    segmenter = build_model(config, Task(1, 1, 3), pretrained=False).eval()
    assert isinstance(segmenter, SKS)
    return segmenter


def levels(segmenter: SKS) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Levels of the fine and the coarse encoder of an image, and those that enter the decoder."""
    found: dict[str, Any] = {}
    segmenter.encoder.register_forward_hook(lambda _, __, out: found.update(fine=out))
    segmenter.coarse.register_forward_hook(
        lambda _, __, out: found.update(coarse=out.encoder_features)
    )
    segmenter.decoder.register_forward_pre_hook(lambda _, inputs: found.update(skips=inputs[0]))
    with torch.no_grad():
        segmenter(torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(2)))
    return found["fine"], found["coarse"], found["skips"]


class Perturbed:
    """Runs a segmenter while one output of the coarse branch is replaced by noise."""

    def __init__(self, segmenter: SKS, what: str) -> None:
        self.segmenter, self.what = segmenter, what

    def _change(self, output: CoarseOutput) -> CoarseOutput:
        def noise(x: Tensor) -> Tensor:
            return x + torch.randn(x.shape, generator=torch.Generator().manual_seed(9))

        if self.what == "deepest":
            features = output.encoder_features
            return replace(output, encoder_features=[*features[:-1], noise(features[-1])])
        if self.what == "finer":
            features = output.encoder_features
            finer = [noise(f) for f in features[:-1]]
            return replace(output, encoder_features=[*finer, features[-1]])
        if self.what == "decoder":
            decoded = {stride: noise(u) for stride, u in output.decoder_features.items()}
            return replace(output, decoder_features=decoded)
        if self.what == "labels":
            return replace(output, global_logits=noise(output.global_logits))
        return replace(output, evidence_logits=noise(output.evidence_logits))

    def changes_the_mask(self) -> bool:
        x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            before = self.segmenter(x).mask_logits
            hook = self.segmenter.coarse.register_forward_hook(
                lambda _, __, output: self._change(output)
            )
            after = self.segmenter(x).mask_logits
            hook.remove()
        return not torch.allclose(before, after, rtol=0, atol=1e-6)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_what_is_built_reaches_the_mask_and_nothing_else_does(
    switches: tuple[bool, bool, bool, bool],
) -> None:
    segmenter = build(*switches)
    share, compensation, long, evidence = switches
    assert Perturbed(segmenter, "deepest").changes_the_mask() is share
    assert Perturbed(segmenter, "finer").changes_the_mask() is (share and compensation)
    assert Perturbed(segmenter, "decoder").changes_the_mask() is long
    assert Perturbed(segmenter, "evidence").changes_the_mask() is evidence


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_nothing_is_built_that_is_not_used(switches: tuple[bool, bool, bool, bool]) -> None:
    segmenter = build(*switches).train()
    segmenter(torch.randn(4, 1, 64, 64)).mask_logits.square().mean().backward()
    idle = [n for n, p in segmenter.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_every_skip_left_out_makes_the_network_smaller() -> None:
    def size(*switches: bool) -> int:
        return sum(p.numel() for p in build(*switches).parameters())

    full = size(True, True, True, True)
    channels = build(True, True, True, True).encoder.channels
    without_fusion = size(False, False, True, True)
    assert full - without_fusion == sum(2 * c * c + c for c in channels)
    fusion_at_the_bottom = size(True, False, True, True)
    assert fusion_at_the_bottom - without_fusion == 2 * channels[-1] ** 2 + channels[-1]
    assert size(True, True, False, True) < full
    assert size(True, True, True, False) < full


def modules(segmenter: SKS) -> set[str]:
    return {type(module).__name__ for module in segmenter.modules()}


def test_modules_are_built_or_not() -> None:
    everything = {"FeatureFusion", "LongSkip", "EvidencePrompt"}
    assert everything <= modules(build(True, True, True, True))
    assert not everything & modules(build(False, False, False, False))


class TestLogMeanExp:
    def test_a_constant_map_pools_to_its_value(self) -> None:
        value = torch.tensor([-3.0, 0.0, 50.0])
        maps = value[None, :, None, None].expand(2, 3, 5, 7)
        assert torch.allclose(logmeanexp(maps), value.expand(2, 3), atol=1e-4)

    def test_one_hot_pixel(self) -> None:
        maps = torch.zeros(1, 1, 4, 4)
        maps[..., 2, 1] = 10.0
        wanted = math.log((15 + math.exp(10)) / 16)
        assert float(logmeanexp(maps)) == pytest.approx(wanted, rel=1e-6)

    def test_large_values_do_not_overflow(self) -> None:
        assert logmeanexp(torch.full((1, 1, 3, 3), 1e4)).isfinite().all()

    @given(
        st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=36),
        st.floats(-5, 5, width=32),
    )
    @settings(max_examples=50, deadline=None)
    def test_lies_between_mean_and_maximum_and_follows_a_shift(
        self, values: list[float], shift: float
    ) -> None:
        maps = torch.tensor(values)[None, None, None]
        pooled = float(logmeanexp(maps))
        assert float(maps.mean()) - 1e-4 <= pooled <= float(maps.max()) + 1e-4
        assert float(logmeanexp(maps + shift)) == pytest.approx(pooled + shift, abs=1e-3)


class Scaled(nn.Module):
    """A fusion that is written outside the package: the fine level and twice the coarse one."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(channels)

    def forward(self, fine: Tensor, coarse: Tensor, level: int) -> Tensor:
        assert fine.shape[1] == self.widths[level]
        return fine + 2 * coarse


class GlobalPrompt(nn.Module):
    """A prompt that is written outside the package: label logits at the deepest level."""

    def __init__(self, coarse: CoarseBranch) -> None:
        super().__init__()
        self.channels = [0] * (len(coarse.encoder.strides) - 1) + [coarse.labels]

    def forward(self, coarse: CoarseOutput, evidence: Tensor) -> list[list[Tensor]]:  # noqa: ARG002
        deepest = coarse.encoder_features[-1]
        maps = coarse.label_logits[:, :, None, None].expand(-1, -1, *deepest.shape[-2:])
        return [*([[]] * (len(self.channels) - 1)), [maps]]


class TestOwnModules:
    """The protocols: what a user passes to `SKS` needs no change of the package."""

    def built(self, **options: Any) -> SKS:
        torch.manual_seed(0)
        return SKS(
            "mobilenetv3_small_050",
            labels=3,
            in_channels=1,
            decoder_channels=(16, 16, 8, 8, 8),
            encoder_weights=None,
            coarse_weights=None,
            **options,
        ).eval()

    def test_a_fusion_of_ones_own(self) -> None:
        network = self.built(fusion=Scaled)
        fine, coarse, skips = levels(network)
        assert isinstance(network.share, Scaled)
        assert network.share.widths == network.encoder.channels
        for s, c, g in zip(fine, coarse, skips, strict=True):
            assert torch.allclose(g, s + 2 * c, atol=1e-5)

    def test_it_gets_the_levels_that_are_to_be_fused(self) -> None:
        deepest = self.built(fusion=Scaled, resolution_compensation=False)
        assert deepest.share.widths == deepest.encoder.channels[-1:]
        unshared = self.built(fusion=Scaled, shared_encoder_levels=2)
        assert unshared.share.widths == unshared.encoder.channels[2:]

    def test_a_prompt_of_ones_own(self) -> None:
        network = self.built(prompts=(LongSkip, GlobalPrompt))
        other = self.built(prompts=(LongSkip,))
        first, shorter = (n.decoder.blocks["16"].convolutions[0][0] for n in (network, other))
        assert first.in_channels == shorter.in_channels + 3
        assert Perturbed(network, "labels").changes_the_mask()
        assert not Perturbed(other, "labels").changes_the_mask()


def test_multi_label_heads_have_one_output_a_label() -> None:
    config: Any = load_config("cpu", "sks-evidence", {"model": {"backbone": "resnet10t"}}).model
    segmenter = build_model(config, Task(2, 2, 4, multi_label=True), pretrained=False).eval()
    with torch.no_grad():
        out = segmenter(torch.randn(1, 2, 32, 32))
    assert out.label_logits is not None
    assert out.label_logits.shape == (1, 4)
    assert out.mask_logits.shape == (1, 2, 32, 32)
