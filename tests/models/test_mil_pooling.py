"""Pooling the images of a study: one of them decides, and their order does not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dxseg.models.coarse_branch import logmeanexp
from dxseg.models.mil_pooling import pool_images, split_by_study

KINDS: list[dict[str, Any]] = [
    {"multi_label": False, "lesion_free": [0]},
    {"multi_label": False, "lesion_free": [0, 2]},
    {"multi_label": False, "lesion_free": []},
    {"multi_label": True, "lesion_free": [0]},
    {"multi_label": True, "lesion_free": []},
]


@st.composite
def bags(draw: st.DrawFn) -> torch.Tensor:
    """Logits of 1 to 12 images for three labels."""
    row = st.lists(st.floats(-15, 15, width=32), min_size=3, max_size=3)
    return torch.tensor(draw(st.lists(row, min_size=1, max_size=12)), dtype=torch.float64)


def lesion(logits: torch.Tensor) -> torch.Tensor:
    """Probability of a lesion, label 0 being lesion-free and labels exclusive."""
    return 1 - logits.softmax(dim=-1)[..., 0]


@pytest.mark.parametrize("kind", KINDS)
@given(bags(), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_the_order_of_images_does_not_matter(
    kind: dict[str, Any], bag: torch.Tensor, random: Any
) -> None:
    order = list(range(len(bag)))
    random.shuffle(order)
    assert torch.allclose(pool_images(bag[order], **kind), pool_images(bag, **kind))


@pytest.mark.parametrize("kind", KINDS)
@given(bags(), st.integers(2, 5))
@settings(max_examples=30)
def test_equal_images_say_what_one_of_them_says(
    kind: dict[str, Any], bag: torch.Tensor, copies: int
) -> None:
    one, many = pool_images(bag, **kind), pool_images(bag.repeat(copies, 1), **kind)
    assert torch.allclose(one, many)
    alone = pool_images(bag[:1], **kind)
    if kind["multi_label"]:
        assert torch.allclose(alone, bag[0])
    else:
        assert torch.allclose(alone.softmax(0), bag[0].softmax(0))


@given(bags())
def test_the_odds_of_a_study_are_the_mean_of_its_images_odds(bag: torch.Tensor) -> None:
    odds = (bag - bag[:, :1]).exp()[:, 1:].sum(dim=1)
    pooled = pool_images(bag, multi_label=False, lesion_free=[0])
    lesion_free, *others = pooled.softmax(dim=-1)
    assert float(sum(others) / lesion_free) == pytest.approx(float(odds.mean()), rel=1e-4)
    likeliest = float(lesion(bag).max())
    assert float(lesion(pooled)) <= likeliest + 1e-9, "the likeliest image is as likely"


@given(bags(), st.integers(1, 2))
def test_one_image_that_is_sure_decides(bag: torch.Tensor, label: int) -> None:
    sure = torch.zeros(1, 3, dtype=torch.float64)
    sure[0, label] = 40
    pooled = pool_images(torch.cat([bag, sure]), multi_label=False, lesion_free=[0])
    assert int(pooled.argmax()) == label
    assert float(pooled.softmax(0)[label]) > 0.99
    several = pool_images(torch.cat([bag, sure]), multi_label=True, lesion_free=[0])
    assert float(several[label].sigmoid()) > 0.99


@given(bags(), st.floats(1, 10))
def test_lesion_free_images_make_a_lesion_free_study(bag: torch.Tensor, margin: float) -> None:
    bag[:, 0] = bag[:, 1:].logsumexp(dim=1) + margin
    pooled = lesion(pool_images(bag, multi_label=False, lesion_free=[0]))
    assert float(pooled) == pytest.approx(1 / (1 + math.exp(margin)), rel=1e-6)


def test_where_labels_are_independent_one_lesion_ends_lesion_free() -> None:
    bag = torch.tensor([[12.0, -12.0]] * 7 + [[-12.0, 12.0]])
    free, ill = pool_images(bag, multi_label=True, lesion_free=[0]).tolist()
    assert free == pytest.approx(-12 + math.log(8), abs=1e-3)
    assert ill == pytest.approx(12 - math.log(8), abs=1e-3)


def test_pooling_places_then_images_is_pooling_all_places() -> None:
    maps = torch.randn(5, 3, 4, 6)
    maps[:, 0] = 0  # measured from the lesion-free label, as evidence is
    pooled = pool_images(logmeanexp(maps), multi_label=False, lesion_free=[0])
    everywhere = maps.transpose(0, 1).flatten(1)
    assert torch.allclose(pooled, logmeanexp(everywhere, dims=(1,)), atol=1e-5)


def test_every_image_is_taught_by_its_study_the_likeliest_most() -> None:
    bag = torch.tensor([[0.0, -1.0], [0.0, 3.0], [0.0, 0.0]], requires_grad=True)
    pool_images(bag, multi_label=False, lesion_free=[0])[1].backward()
    assert bag.grad is not None
    share = bag.grad[:, 1]
    assert torch.allclose(share, torch.tensor([-1.0, 3.0, 0.0]).softmax(0))


def test_rows_of_each_study_in_the_order_of_their_numbers() -> None:
    rows = split_by_study(torch.arange(6), torch.tensor([7, 2, 7, 9, 2, 7]))
    assert [one.tolist() for one in rows] == [[1, 4], [0, 2, 5], [3]]
