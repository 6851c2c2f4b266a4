"""Apportionment of indivisible groups, and orders of which every beginning is a sample."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxseg.data.splits.mask_budget import nested_order
from dxseg.data.splits.stratified_split import apportion

SHARES = (0.7, 0.1, 0.2)


def parts_of(sizes: list[int], strata: list[str], shares: tuple[float, ...], seed: int = 0):
    return apportion(np.array(sizes), strata, shares, np.random.default_rng(seed)).tolist()


def dhondt(seats: int, votes: tuple[float, ...]) -> list[int]:
    """Seats by the largest of votes / 1, votes / 2, ..."""
    averages = [(vote / n, party) for party, vote in enumerate(votes) for n in range(1, seats + 1)]
    won = Counter(party for _, party in sorted(averages, reverse=True)[:seats])
    return [won[party] for party in range(len(votes))]


@pytest.mark.parametrize("shares", [(0.61, 0.39), (0.503, 0.298, 0.199), (0.21, 0.47, 0.32)])
@pytest.mark.parametrize("count", [7, 12, 20, 31])
def test_single_cases_are_apportioned_as_seats_are(shares, count):
    parts = parts_of([1] * count, ["a"] * count, shares)
    assert [parts.count(part) for part in range(len(shares))] == dhondt(count, shares)


@pytest.mark.parametrize(("count", "held"), [(1, [1, 0, 0]), (2, [2, 0, 0]), (3, [1, 1, 1])])
def test_a_stratum_reaches_every_part_if_it_has_as_many_groups(count, held):
    parts = parts_of([1] * count, ["a"] * count, SHARES)
    assert [parts.count(part) for part in range(3)] == held


def test_what_a_stratum_could_not_balance_the_next_ones_do():
    """Of one case each, all would go to the largest part."""
    names = [f"s{i:02}" for i in range(40)]
    for seed in range(3):
        parts = parts_of([1] * 40, names, SHARES, seed)
        assert [parts.count(part) for part in range(3)] == [28, 4, 8]


def test_rare_strata_come_first_and_the_frequent_one_makes_up_for_them():
    strata = ["z"] + ["a"] * 9
    for seed in range(5):
        parts = parts_of([1] * 10, strata, (0.5, 0.5), seed)
        assert parts[0] == 0, "alone, and first: to the first of the largest parts"
        assert parts.count(0) == parts.count(1) == 5


def test_a_large_group_counts_with_all_its_cases():
    """Four cases at once, then one after the other to the other part until it holds as many."""
    assert parts_of([4, 1, 1, 1, 1], list("abcde"), (0.5, 0.5)) == [0, 1, 1, 1, 1]
    assert parts_of([4, 1, 1, 1, 1], ["a", *["b"] * 4], (0.5, 0.5)).count(1) == 3, "b reaches both"


def test_a_part_of_share_zero_receives_nothing():
    parts = parts_of([1] * 20, ["a", "b"] * 10, (0.0, 0.75, 0.25))
    assert (parts.count(0), parts.count(1), parts.count(2)) == (0, 15, 5)


def test_no_group_no_part():
    assert parts_of([], [], SHARES) == []


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[int], list[str]]:
    count = draw(st.integers(1, 40))
    sizes = draw(st.lists(st.integers(1, 6), min_size=count, max_size=count))
    strata = draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count))
    return sizes, strata


@given(groups(), st.integers(0, 99), st.sampled_from([SHARES, (0.3, 0.7), (0.25,) * 4]))
@settings(max_examples=40, deadline=None)
def test_shares_hold_for_the_whole_and_only_their_ratios_matter(drawn, seed, shares):
    sizes, strata = drawn
    parts = parts_of(sizes, strata, shares, seed)
    assert parts == parts_of(sizes, strata, tuple(8 * share for share in shares), seed)
    for name in set(strata):
        members = [part for part, stratum in zip(parts, strata, strict=True) if stratum == name]
        if len(members) >= len(shares):
            assert set(members) == set(range(len(shares)))
    for part, share in enumerate(shares):
        held = sum(size for size, p in zip(sizes, parts, strict=True) if p == part)
        assert abs(held - share * sum(sizes)) <= (1 + len(set(strata))) * max(sizes)


def test_the_order_within_a_stratum_is_drawn():
    drawn = {tuple(parts_of([1] * 10, ["a"] * 10, (0.5, 0.5), seed)) for seed in range(5)}
    assert len(drawn) == 5


def order_of(strata: list[str], belongs: list[str], seed: int = 0) -> list[int]:
    return nested_order(strata, np.array(belongs), np.random.default_rng(seed)).tolist()


def test_strata_come_up_at_the_middles_of_equal_intervals():
    """Six at 1/12, 3/12, ... and three at 1/6, 3/6, 5/6."""
    strata = ["a"] * 6 + ["b"] * 3
    for seed in range(3):
        order = order_of(strata, [str(i) for i in range(9)], seed)
        assert "".join(strata[i] for i in order) == "abaabaaba"
        assert sorted(order) == list(range(9))


def test_every_group_gives_one_case_before_any_gives_a_second():
    belongs = ["p", "p", "p", "q", "q", "r"]
    for seed in range(6):
        order = [belongs[i] for i in order_of(["a"] * 6, belongs, seed)]
        assert sorted(order[:3]) == ["p", "q", "r"]
        assert sorted(order[3:5]) == ["p", "q"]
        assert order[5] == "p"


def test_what_is_first_among_equals_is_drawn():
    drawn = [order_of(["a", "b"], ["p", "q"], seed) for seed in range(20)]
    assert [0, 1] in drawn
    assert [1, 0] in drawn
    within = {tuple(order_of(["a"] * 8, [str(i) for i in range(8)], seed)) for seed in range(5)}
    assert len(within) == 5


def test_nothing_has_an_empty_order():
    assert order_of([], []) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("pqrst")), max_size=40))
@settings(max_examples=40, deadline=None)
def test_every_beginning_holds_each_stratum_in_proportion(cases):
    strata, belongs = [s for s, _ in cases], [g for _, g in cases]
    order = order_of(strata, belongs)
    assert sorted(order) == list(range(len(cases)))
    total = Counter(strata)
    for length in range(len(cases) + 1):
        held = Counter(strata[i] for i in order[:length])
        for name in total:
            assert abs(held[name] - length * total[name] / len(cases)) <= 1.5
        for name in total:
            given_by = Counter(belongs[i] for i in order[:length] if strata[i] == name)
            of = Counter(b for s, b in cases if s == name)
            unspent = [given_by[group] for group in of if given_by[group] < of[group]]
            assert max(given_by.values(), default=0) <= min(unspent, default=99) + 1
