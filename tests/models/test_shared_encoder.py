"""Shared levels: the same function as two whole encoders, for less, and frozen to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dxseg.config.network import ModelConfig
from dxseg.config.presets import load_config
from dxseg.errors import UsageError
from dxseg.models import SKS
from dxseg.models.encoder import PyramidEncoder
from dxseg.models.factory import Task, build_coarse_branch, build_model
from dxseg.models.shared_encoder import EncoderTail, split_into_stages
from plain_backbone import small_swin

TASK = Task(channels=1, mask_classes=1, labels=3)
SMALL: dict[str, Any] = {
    "backbone": "mobilenetv3_small_050",
    "decoder_channels": [16, 16, 8, 8, 8],
}
CHAINS = ["tf_efficientnet_lite0", "lcnet_050", "resnet18", small_swin.__name__]


def config(shared: int, **changes: Any) -> ModelConfig:
    model = SMALL | {"shared_encoder_levels": shared} | changes
    return load_config("cpu", "sks-evidence", {"model": model}).model


def built(shared: int, **changes: Any) -> SKS:
    """From one stage 1: both encoders start from the same weights."""
    chosen = config(shared, **changes)
    torch.manual_seed(3)
    stage1 = build_coarse_branch(chosen, TASK, pretrained=False)
    torch.manual_seed(4)
    segmenter = build_model(chosen, TASK, stage1=stage1, pretrained=False)
    assert isinstance(segmenter, SKS)
    return segmenter


def images(count: int = 2, size: int = 64) -> Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(0))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def norms(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def multiply_adds(network: nn.Module) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(images(1))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("backbone", CHAINS)
def test_a_divided_encoder_computes_what_the_whole_one_does(backbone: str) -> None:
    encoder = PyramidEncoder(backbone, 1).eval()
    x = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        whole = encoder(x)
        for shared in range(1, len(whole)):
            rest = EncoderTail(encoder, shared).eval()
            assert (rest.channels, rest.strides) == (encoder.channels, encoder.strides)
            own = rest(whole[shared - 1])
            assert all(torch.equal(a, b) for a, b in zip(own, whole[shared:], strict=True))


@pytest.mark.parametrize("shared", [1, 2, 3, 4])
def test_shared_and_separate_encoders_of_equal_weights_give_equal_outputs(shared: int) -> None:
    """Before training: the fusion of a level with its equal is the level itself."""
    separate, together = built(0).eval(), built(shared).eval()
    for name in ("decoder", "head"):  # random in both; the rest comes from stage 1
        state = getattr(separate, name).state_dict()
        getattr(together, name).load_state_dict(state)
    with torch.no_grad():
        one, other = separate(images()), together(images())
    assert torch.allclose(one.mask_logits, other.mask_logits, atol=1e-5)
    assert torch.equal(one.label_logits, other.label_logits)  # type: ignore[arg-type]
    assert one.mask_logits.std() > 0


def test_every_level_shared_makes_it_cheaper() -> None:
    networks = [built(shared).eval() for shared in range(5)]
    sizes = [parameters(network) for network in networks]
    costs = [multiply_adds(network) for network in networks]
    assert sizes == sorted(set(sizes), reverse=True)
    assert costs == sorted(set(costs), reverse=True)


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_shared_levels_keep_weights_and_statistics(rate: float) -> None:
    """Also where the rest of the coarse branch learns."""
    segmenter = built(2, coarse_learning_rate_scale=rate).train()
    shared = nn.ModuleList(split_into_stages(segmenter.coarse.encoder)[:2])
    later = nn.ModuleList(split_into_stages(segmenter.coarse.encoder)[2:])
    before = [{n: t.clone() for n, t in part.state_dict().items()} for part in (shared, later)]
    trainable = [p for p in segmenter.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    for _ in range(2):
        segmenter(images(4)).mask_logits.square().mean().backward()
        optimizer.step()
    assert all(parameter.grad is None for parameter in shared.parameters())
    after = [part.state_dict() for part in (shared, later)]
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    learned = any(not torch.equal(before[1][name], after[1][name]) for name in before[1])
    assert learned == (rate > 0)
    fine = [p.grad is not None and bool(p.grad.any()) for p in segmenter.encoder.parameters()]
    assert all(fine)


def test_shared_levels_stay_in_evaluation_mode() -> None:
    outer = nn.Sequential(built(2, coarse_learning_rate_scale=0.1))
    for mode in (True, False, True):
        outer.train(mode)
        levels = split_into_stages(outer[0].coarse.encoder)
        assert {norm.training for level in levels[:2] for norm in norms(level)} == {False}
        assert {norm.training for level in levels[2:] for norm in norms(level)} == {mode}


def test_without_sharing_names_of_weights_are_as_before() -> None:
    """Bundles of earlier versions stay loadable."""
    names = set(built(0).state_dict())
    assert {"encoder.body.conv_stem.weight", "coarse.encoder.body.conv_stem.weight"} <= names
    assert {"share.fusions.0.weight", "share.fusions.4.weight"} <= names
    assert not any(".levels." in name for name in names)


class TestRefusals:
    def test_nothing_left_for_the_fine_encoder(self) -> None:
        with pytest.raises(
            UsageError, match=r"shared_encoder_levels = 5: mobilenetv3.* has 5 levels.* 4"
        ):
            built(5)

    def test_a_backbone_that_is_no_chain(self) -> None:
        with pytest.raises(UsageError, match=r"shared_encoder_levels.*'hrnet_w18_small'.*resnet18"):
            split_into_stages(PyramidEncoder("hrnet_w18_small", 1))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"architecture": "unet"}, "needs the two encoders"),
            ({"encoder_init": "pretrained"}, "must be the same"),
        ],
    )
    def test_settings_that_do_not_go_together(self, change: dict[str, str], said: str) -> None:
        with pytest.raises(UsageError, match=said):
            config(1, **change)
