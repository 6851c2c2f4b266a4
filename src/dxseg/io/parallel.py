"""Calling a function for many files in several processes.

`ProcessPoolExecutor` does the work; this module bounds what is in flight, yields results as they
are done, and explains a process that died. joblib was not taken: it has no such generator with a
spawned process per core that survives Ctrl-C in order.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from dxseg.errors import DxsegError, UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 16
# A process that must first import numpy and Pillow costs as much as a few hundred images.
MIN_ITEMS_PER_PROCESS = 128
_CHUNKS_AHEAD = 4


def count_workers(workers: int | None) -> int:
    """Resolve the number of processes.

    Args:
        workers: Number of processes; None: number of cores.

    Raises:
        UsageError: It is not positive.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers: expected 1 or more; default: number of cores")
    return workers or os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    min_items_per_process: int | None = None,
    chunk: int = CHUNK,
) -> Iterator[tuple[int, Result]]:
    """Call a function for each item, in several processes if there are enough items.

    Processes are spawned, so the function and the items must be importable from a module. Only a
    few chunks are in flight at a time: memory does not grow with the number of items. Leaving the
    loop early, also by Ctrl-C, ends the processes.

    Args:
        function: Called with one item.
        items: Arguments of the calls.
        workers: Maximum number of processes; default: number of cores. 1: no other process.
        min_items_per_process: Items below which another process is not worth its start; the default
            is for a light function.
        chunk: Items that a process receives at a time.

    Yields:
        Position in `items` and result, in order of completion.

    Raises:
        DxsegError: A process died, usually because memory ran out. Errors of the function are
            raised unchanged.
    """
    processes = min(
        count_workers(workers), len(items) // (min_items_per_process or MIN_ITEMS_PER_PROCESS)
    )
    if processes <= 1:
        for position, item in enumerate(items):
            yield position, function(item)
        return
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_ignore_interrupts,
    )
    try:
        yield from _as_completed(pool, function, items, processes * _CHUNKS_AHEAD, chunk)
    except BrokenProcessPool as error:
        raise DxsegError(
            f"one of {processes} processes ended unexpectedly, usually because memory ran out; "
            "use fewer workers; a Python script that calls this needs `if __name__ == "
            '"__main__":` around its calls'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _as_completed(
    pool: ProcessPoolExecutor,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    ahead: int,
    chunk: int,
) -> Iterator[tuple[int, Result]]:
    running: dict[Future[list[Result]], int] = {}
    starts = iter(range(0, len(items), chunk))
    while True:
        for start in starts:
            future = pool.submit(_each, function, items[start : start + chunk])
            running[future] = start
            if len(running) >= ahead:
                break
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield from enumerate(future.result(), running.pop(future))


def _each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]


def _ignore_interrupts() -> None:
    # Ctrl-C reaches every process of a terminal; the parent ends the others in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
