"""Coarse features of a whole image, placed where a patch of it lies."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dxseg.errors import UsageError
from dxseg.models import SKS, CoarseBranch, create_model
from dxseg.models.segmenter_with_classifier import SegmenterWithClassifier
from dxseg.models.whole_view import WholeView

BACKBONE = "test_efficientnet"
SIZES: dict[str, Any] = {"in_channels": 1, "decoder_channels": (16, 16, 8, 8, 8)}


def ramp(height: int, width: int) -> torch.Tensor:
    """x and y of every pixel center, as fractions of the sides: (1, 2, H, W)."""
    y, x = torch.meshgrid(
        (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
    )
    return torch.stack([x, y])[None]


@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_features_of_a_patch_are_those_of_its_place(stride: int, reduction: int) -> None:
    """A map of its own coordinates: closed form, away from the border of the image."""
    height, width, patch = 256, 384, 64
    whole = torch.zeros(1, 1, height // reduction, width // reduction)
    features = ramp(whole.shape[2] // stride, whole.shape[3] // stride)
    corner = torch.tensor([[160, 96]])
    view = WholeView(whole, reduction, corner, (patch, patch))

    placed = view.place(features)

    side = patch // stride
    assert placed.shape == (1, 2, side, side)
    centers = (torch.arange(side) + 0.5) * stride
    torch.testing.assert_close(placed[0, 0, 0], (160 + centers) / width)
    torch.testing.assert_close(placed[0, 1, :, 0], (96 + centers) / height)


def test_corners_are_not_rounded_where_features_are() -> None:
    whole, features = torch.zeros(1, 1, 64, 2048), torch.rand(1, 3, 32, 1024).bfloat16()
    view = WholeView(whole, 1, torch.tensor([[1002, 0]]), (64, 64))
    assert torch.equal(view.place(features), features[..., 501:533])


def test_one_whole_image_stands_for_all_patches_of_it() -> None:
    features, corners = torch.rand(1, 3, 32, 32), torch.tensor([[0, 0], [10, 20], [64, 64]])
    one = WholeView(torch.zeros(1, 1, 128, 128), 1, corners, (64, 64)).place(features)
    each = WholeView(torch.zeros(3, 1, 128, 128), 1, corners, (64, 64))
    torch.testing.assert_close(one, each.place(features.repeat(3, 1, 1, 1)))


@pytest.mark.parametrize("reduction", [1, 2])
def test_a_patch_of_the_whole_image_is_the_image(reduction: int) -> None:
    images = torch.randn(2, 1, 64, 64)
    features = torch.randn(2, 3, 64 // reduction // 4, 64 // reduction // 4)
    plain = WholeView.of(images, reduction)
    view = WholeView(plain.image, reduction, torch.zeros(2, 2), (64, 64))

    torch.testing.assert_close(view.place(features), plain.place(features))


def models(reduction: int) -> dict[str, torch.nn.Module]:
    """One network of each kind that classifies whole images."""
    torch.manual_seed(0)
    classifier = CoarseBranch(BACKBONE, 3, encoder_weights=None, lesion_free=[0], **SIZES)
    options: dict[str, Any] = {"encoder_weights": None, "coarse_reduction": reduction, **SIZES}
    return {
        "sks": SKS.from_classifier(classifier, coarse_reduction=reduction),
        "label head": create_model("unet", BACKBONE, 3, **options),
        "classifier beside": SegmenterWithClassifier(
            create_model("unet", BACKBONE, **options), classifier
        ),
    }


@pytest.mark.parametrize("name", ["sks", "label head", "classifier beside"])
def test_labels_are_of_the_whole_image_whatever_the_patch(name: str) -> None:
    network = models(2)[name].eval()
    image = torch.randn(1, 1, 128, 128)
    view = WholeView.of(image, 2)
    patches = [
        network(
            image[..., y : y + 64, x : x + 64],
            None,
            WholeView(view.image, 2, torch.tensor([[x, y]]), (64, 64)),
        )
        for x, y in [(0, 0), (64, 32)]
    ]
    expected = network(image)

    for patch in patches:
        torch.testing.assert_close(patch.label_logits, expected.label_logits)
        assert patch.mask_logits.shape == (1, 1, 64, 64)
    assert expected.mask_logits.shape == (1, 1, 128, 128)


@pytest.mark.parametrize("name", ["sks", "label head", "classifier beside"])
def test_only_masks_depend_on_detail_that_the_reduction_averages_out(name: str) -> None:
    image = torch.randn(1, 1, 128, 128)
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(64, 64)
    changes = {}
    for reduction in (1, 2):
        network = models(reduction)[name].eval()
        plain, other = network(image), network(image + checks)
        changes[reduction] = [
            (getattr(plain, field) - getattr(other, field)).abs().max().item()
            for field in ("label_logits", "mask_logits")
        ]
    assert changes[2][0] < 0.01 * changes[1][0]
    assert changes[2][1] > 0.1 * changes[1][1]


def test_any_size_is_padded_to_what_the_coarse_branch_needs() -> None:
    network = models(4)["sks"].eval()
    output = network(torch.randn(1, 1, 150, 210))
    assert output.mask_logits.shape == (1, 1, 150, 210)
    assert output.evidence is not None
    assert output.evidence.shape[-2:] == (38, 53)


def test_levels_of_different_resolutions_cannot_be_shared() -> None:
    with pytest.raises(UsageError, match="reduced by 2"):
        SKS(BACKBONE, 3, coarse_reduction=2, shared_encoder_levels=1, **SIZES)
