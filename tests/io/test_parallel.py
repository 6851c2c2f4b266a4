"""Work in several processes: nothing lost, errors as they are, processes ended."""

from __future__ import annotations

import multiprocessing
import os
from itertools import islice

import pytest

from dxseg.errors import DxsegError, UsageError
from dxseg.io.parallel import count_workers, parallel_map

MANY = 300


def square(number: int) -> tuple[int, int]:
    return number**2, os.getpid()


def refuse(number: int) -> int:
    if number == 200:
        raise DxsegError("200: not this one")
    return number


def die(number: int) -> int:
    if number == 7:
        os._exit(9)
    return number


@pytest.mark.parametrize("count", [0, 5, MANY])
@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_is_done_once_under_its_position(count: int, workers: int) -> None:
    items = list(range(100, 100 + count))
    results = dict(parallel_map(square, items, workers=workers))
    assert {place: value for place, (value, _) in results.items()} == {
        place: item**2 for place, item in enumerate(items)
    }
    elsewhere = {process for _, process in results.values()} - {os.getpid()}
    assert bool(elsewhere) == (workers > 1 and count == MANY)


def test_an_error_is_raised_as_it_is() -> None:
    with pytest.raises(DxsegError, match="200: not this one"):
        list(parallel_map(refuse, range(MANY), workers=2))
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(DxsegError, match="fewer workers"):
        list(parallel_map(die, range(MANY), workers=2))


def test_leaving_early_ends_the_processes() -> None:
    results = parallel_map(square, range(MANY), workers=2)
    assert len(list(islice(results, 3))) == 3
    results.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_no_workers_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="0 workers"):
        count_workers(0)
    assert count_workers(None) >= 1
