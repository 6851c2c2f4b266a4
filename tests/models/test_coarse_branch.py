from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dxseg.models.coarse_branch import EVIDENCE_STRIDE, CoarseBranch, CoarseOutput, logmeanexp


def branch(**changes: Any) -> CoarseBranch:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"in_channels": 1, "decoder_channels": (16, 16, 8, 8, 8)}
    network = CoarseBranch("mobilenetv3_small_050", 3, encoder_weights=None, **sizes, **changes)
    return network.eval()


def answered(coarse: CoarseBranch, maps: torch.Tensor) -> CoarseOutput:
    """What the branch makes of evidence maps (B, 3, h, w) that its heads would have given."""
    finest = torch.zeros(len(maps), 8, *maps.shape[-2:])
    decoded = {16: finest, 8: finest, EVIDENCE_STRIDE: finest}
    coarse.evidence_heads = nn.ModuleDict({str(EVIDENCE_STRIDE): Given(maps)})
    evidence = coarse._evidence_logits(decoded)
    pooled = logmeanexp(evidence)
    return CoarseOutput([], decoded, evidence, pooled, pooled)


class Given(nn.Module):
    def __init__(self, maps: torch.Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.maps


def lesion_at(rows: slice, columns: slice) -> torch.Tensor:
    """Maps of labels (one lesion, another, lesion-free) where the second shows in one place."""
    maps = torch.full((1, 3, 16, 16), -10.0)
    maps[:, 2] = 0
    maps[0, 1, rows, columns] = 12
    return maps


def test_one_place_that_shows_a_lesion_decides_the_image() -> None:
    coarse = branch(lesion_free=(2,))
    nothing, something = lesion_at(slice(0), slice(0)), lesion_at(slice(5, 8), slice(5, 8))
    labels = answered(coarse, torch.cat([nothing, something])).label_logits.argmax(dim=1)
    assert labels.tolist() == [2, 1]


def test_lesion_free_is_the_zero_that_lesions_are_measured_from() -> None:
    coarse = branch(lesion_free=(2,))
    maps = torch.randn(2, 3, 16, 16)
    pooled = answered(coarse, maps).pooled_logits
    assert torch.allclose(pooled[:, 2], torch.zeros(2), atol=1e-5)
    shifted = maps + torch.randn(2, 1, 16, 16)
    assert torch.allclose(answered(coarse, shifted).pooled_logits, pooled, atol=1e-4)


def test_without_a_lesion_free_label_every_label_is_its_own_maximum() -> None:
    maps = torch.randn(1, 3, 16, 16)
    raised = maps + torch.tensor([0.0, 3.0, 0.0])[None, :, None, None]
    before, after = (answered(branch(), m).pooled_logits for m in (maps, raised))
    assert torch.allclose(after - before, torch.tensor([[0.0, 3.0, 0.0]]), atol=1e-4)


def test_evidence_points_at_the_lesion_and_names_it() -> None:
    coarse = branch(lesion_free=(2,))
    evidence = coarse.evidence(answered(coarse, lesion_at(slice(5, 8), slice(5, 8))))[0]
    assert (evidence[1, 5:8, 5:8] > 0.9).all()
    evidence[1, 5:8, 5:8] = 0
    assert (evidence[1] < 0.1).all()
    assert (evidence[0] < 0.1).all()


def test_evidence_of_a_lesion_free_image_is_low_everywhere() -> None:
    coarse = branch(lesion_free=(2,))
    evidence = coarse.evidence(answered(coarse, lesion_at(slice(0), slice(0))))[0]
    assert (evidence[:2] < 0.01).all()
    assert (evidence[2] > 0.4).all()


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


def test_a_known_label_stands_in_for_the_branch_s_own_opinion() -> None:
    coarse = branch(lesion_free=(2,))
    output = answered(coarse, lesion_at(slice(5, 8), slice(5, 8)).expand(4, -1, -1, -1))
    own = coarse.evidence(output)
    evidence = coarse.evidence(output, torch.tensor([-1, 0, 1, 2]))
    assert torch.equal(evidence[0], own[0])
    excess = (output.evidence_logits - output.pooled_logits[:, :, None, None]).sigmoid()
    for image, label in ((1, 0), (2, 1), (3, 2)):
        assert torch.equal(evidence[image, label], excess[image, label]), "at full strength"
        others = [other for other in range(3) if other != label]
        assert not evidence[image, others].any(), "of nothing else"


def test_known_labels_of_several_each_stand_alone() -> None:
    coarse = branch(multi_label=True)
    maps = torch.randn(2, 3, 16, 16)
    output = answered(coarse, maps)
    nan = float("nan")
    evidence = coarse.evidence(output, torch.tensor([[1.0, 0.0, nan], [nan, nan, nan]]))
    own = coarse.evidence(output)
    excess = (output.evidence_logits - output.pooled_logits[:, :, None, None]).sigmoid()
    assert torch.equal(evidence[0, 0], excess[0, 0])
    assert not evidence[0, 1].any()
    assert torch.equal(evidence[0, 2], own[0, 2])
    assert torch.equal(evidence[1], own[1])
