"""Dropped features: whole channels, between encoder and decoder, only inside the block."""

from __future__ import annotations

import pytest
import torch

from dxseg.models import create_model
from dxseg.models.feature_dropout import dropped_features

NETWORKS = ("unet", "unetplusplus", "manet", "sks")


@pytest.mark.parametrize("architecture", NETWORKS)
def test_masks_change_inside_the_block_alone(architecture: str) -> None:
    torch.manual_seed(0)
    network = create_model(
        architecture,
        "lcnet_050",
        3 if architecture == "sks" else 0,
        in_channels=1,
        decoder_channels=(16, 16, 8, 8, 8),
        encoder_weights=None,
        **({"coarse_weights": None} if architecture == "sks" else {}),
    ).eval()
    image = torch.randn(2, 1, 64, 64)
    before = network(image).mask_logits
    with dropped_features(network.encoder, 0.5):
        one, other = network(image).mask_logits, network(image).mask_logits
    assert not torch.equal(one, before)
    assert not torch.equal(one, other), "drawn anew each time"
    assert torch.equal(network(image).mask_logits, before)


def test_whole_channels_are_dropped_and_the_others_scaled() -> None:
    levels = [torch.ones(2, 50, 4, 4), torch.ones(2, 50, 2, 2)]

    class Encoder(torch.nn.Module):
        def forward(self, _: object) -> list[torch.Tensor]:
            return levels

    encoder = Encoder()
    torch.manual_seed(0)
    with dropped_features(encoder, 0.5):
        dropped = encoder(None)
    for level in dropped:
        channels = level.flatten(2)
        assert (channels == channels[..., :1]).all()
        assert set(level.unique().tolist()) == {0.0, 2.0}
        assert 0.3 < float((level == 0).float().mean()) < 0.7


def test_it_ends_when_the_block_fails() -> None:
    encoder = torch.nn.Identity()
    with pytest.raises(KeyError), dropped_features(encoder, 0.5):
        raise KeyError
    assert torch.equal(encoder(torch.ones(1, 4, 2, 2)), torch.ones(1, 4, 2, 2))
