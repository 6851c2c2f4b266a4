from __future__ import annotations

import pytest
import torch

from dxseg.models.coarse import EVIDENCE_STRIDE, CoarseBranch
from dxseg.models.pyramid import PyramidEncoder


def branch(**changes: object) -> CoarseBranch:
    torch.manual_seed(0)
    encoder = PyramidEncoder("mobilenetv3_small_050", 1)
    return CoarseBranch(encoder, (16, 16, 8, 8, 8), 3, **changes).eval()  # type: ignore[arg-type]


def shown(coarse: CoarseBranch, maps: torch.Tensor) -> torch.Tensor:
    """The image-level logits that the evidence head gives for maps of its own."""
    return coarse._pool(maps)


def test_one_place_that_shows_a_lesion_decides_the_image() -> None:
    coarse = branch(lesion_free=(2,))
    maps = torch.full((2, 3, 16, 16), -10.0)
    maps[:, 2] = 0
    maps[1, 1, 5:8, 5:8] = 12
    assert shown(coarse, maps).argmax(dim=1).tolist() == [2, 1]


def test_lesion_free_is_the_zero_that_lesions_are_measured_from() -> None:
    coarse = branch(lesion_free=(2,))
    maps = torch.randn(2, 3, 16, 16)
    pooled = shown(coarse, maps)
    assert torch.allclose(pooled[:, 2], torch.zeros(2), atol=1e-5)
    shifted = maps + torch.randn(2, 1, 16, 16)
    assert torch.allclose(shown(coarse, shifted), pooled, atol=1e-4)


def test_without_a_lesion_free_label_every_label_is_its_own_maximum() -> None:
    maps = torch.randn(1, 3, 16, 16)
    raised = maps + torch.tensor([0.0, 3.0, 0.0])[None, :, None, None]
    difference = shown(branch(), raised) - shown(branch(), maps)
    assert torch.allclose(difference, torch.tensor([[0.0, 3.0, 0.0]]), atol=1e-4)


@pytest.mark.parametrize("multi_label", [False, True])
def test_evidence_has_one_map_a_label_at_its_stride(multi_label: bool) -> None:
    coarse = branch(multi_label=multi_label, lesion_free=(0,))
    with torch.no_grad():
        output = coarse(torch.randn(2, 1, 64, 96))
    evidence = coarse.evidence(output)
    assert tuple(evidence.shape) == (2, 3, 64 // EVIDENCE_STRIDE, 96 // EVIDENCE_STRIDE)
    assert ((evidence >= 0) & (evidence <= 1)).all()
    assert min(output.decoder_features) == EVIDENCE_STRIDE
    assert torch.allclose(output.label_logits, (output.global_logits + output.pooled_logits) / 2)


def test_every_decoder_level_speaks_in_the_evidence() -> None:
    coarse = branch()
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        before = coarse(x).evidence_logits
        for count, head in enumerate(coarse.evidence_heads.values(), start=1):
            head.bias += 1  # type: ignore[operator]
            raised = coarse(x).evidence_logits - before
            assert torch.allclose(raised, torch.full_like(raised, count), atol=1e-4)
    assert count == 3
