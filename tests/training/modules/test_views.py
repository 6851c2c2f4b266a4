"""Mixing: pixels keep what is known of them, whichever image they are moved to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dxseg.training.modules.views import Views, mix

SIDE = 8
MASKED, UNMASKED = 3, 2


def views(values: list[float], *, true: bool, usable: list[bool] | None = None) -> Views:
    """Images of one value, whose mask is ten times that; labels are the positions."""
    image = torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE)
    usable = usable or [True] * len(values)
    pixels = torch.tensor(usable, dtype=torch.bool).reshape(-1, 1, 1, 1).expand_as(image)
    known = pixels & true, pixels & (not true)
    labels = torch.arange(len(values))
    return Views(image, 10 * image, *known, labels, labels, labels)


def boxes(*corners: int) -> Tensor:
    """(N, 1, SIDE, SIDE), squares from a corner on the diagonal to the end; none for `SIDE`."""
    made = torch.zeros(len(corners), 1, SIDE, SIDE, dtype=torch.bool)
    for box, corner in zip(made, corners, strict=True):
        box[:, corner:, corner:] = True
    return made


@pytest.fixture
def masked() -> Views:
    return views([1.0, 2.0, 3.0], true=True)


@pytest.fixture
def unmasked() -> Views:
    return views([5.0, 6.0], true=False, usable=[True, False])


@pytest.mark.parametrize("kind", [None, "cutmix", "copy-paste"])
def test_a_mask_moves_with_its_pixels(masked: Views, unmasked: Views, kind: object) -> None:
    seen = mix(masked, [unmasked, unmasked], [boxes(2, 3), boxes(4, 5)], kind)  # type: ignore[arg-type]
    assert len(seen) == MASKED + 2 * UNMASKED
    assert torch.equal(seen.mask, 10 * seen.image)
    assert torch.equal(seen.true, seen.image < 4), "of images with a mask"
    assert torch.equal(seen.pseudo, seen.image == 5), "what is refused stays refused"


def test_cutmix_is_among_images_without_a_mask(masked: Views, unmasked: Views) -> None:
    seen = mix(masked, [unmasked], [boxes(2, SIDE)], "cutmix")
    assert torch.equal(seen.image[:MASKED], masked.image)
    box = boxes(2)[0]
    assert torch.equal(seen.image[MASKED], torch.where(box, 6.0, 5.0))
    assert (seen.image[MASKED + 1] == 6).all()
    assert seen.label.tolist() == [0, 1, 2, -1, 1], "a mixed image has no label of its own"
    assert seen.label_prompt.tolist() == seen.label.tolist()
    assert seen.row.tolist() == [0, 1, 2, 0, 1]


def test_copy_paste_goes_both_ways_through_the_same_box(masked: Views, unmasked: Views) -> None:
    first, second = boxes(2)[0], boxes(3)[0]
    seen = mix(masked, [unmasked], [boxes(2, 3)], "copy-paste")
    wanted = [(1, 5, first), (2, 6, second), (3, 5, first), (5, 1, first), (6, 2, second)]
    for image, (outside, inside, box) in zip(seen.image, wanted, strict=True):
        assert torch.equal(image, torch.where(box, float(inside), float(outside)))
    assert (seen.label == -1).all()


def test_there_is_nothing_to_paste_without_one_kind(masked: Views, unmasked: Views) -> None:
    none = views([], true=True)
    assert torch.equal(mix(none, [unmasked], [boxes(2, 2)], "copy-paste").image, unmasked.image)
    empty = views([], true=False)
    for kind in ("copy-paste", "cutmix"):
        assert torch.equal(mix(masked, [empty], [boxes()], kind).image, masked.image)  # type: ignore[arg-type]


def test_several_labels_are_forgotten_together(unmasked: Views) -> None:
    several = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    image, mask, true, pseudo = unmasked.image, unmasked.mask, unmasked.true, unmasked.pseudo
    many = Views(image, mask, true, pseudo, several, several, unmasked.row)
    mixed = many.paste(many.select(torch.tensor([1, 0])), boxes(2, SIDE))
    assert mixed.label[0].isnan().all()
    assert mixed.label[1].tolist() == [1.0, 0.0]
    assert not math.isnan(many.label[0, 0]), "the original is left alone"
