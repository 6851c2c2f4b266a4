"""Work on many files in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from dxseg.errors import DxsegError, UsageError

PredictionInput = TypeVar("PredictionInput")
Result = TypeVar("Result")

CHUNK = 16
# A process that must first import numpy and Pillow costs as much as a few hundred images.
ITEMS_WORTH_A_PROCESS = 128
_CHUNKS_AHEAD = 4


def count_workers(workers: int | None) -> int:
    """Give the number of processes to use: what was asked for, or one for each core.

    Args:
        workers: What was asked for; None for the number of cores.

    Raises:
        UsageError: It is not positive.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers: expected 1 or more, or nothing for one a core")
    return workers or os.cpu_count() or 1


def parallel_map(
    function: Callable[[PredictionInput], Result],
    items: Sequence[PredictionInput],
    *,
    workers: int | None = None,
    worth: int | None = None,
    chunk: int = CHUNK,
) -> Iterator[tuple[int, Result]]:
    """Call a function for each item, in processes where that pays.

    Processes are spawned, so the function and the items must be importable from a module. Only a
    few chunks are handed out at a time: memory does not grow with the number of items. Leaving the
    loop early, by Ctrl-C too, ends the processes.

    Args:
        function: Called with one item.
        items: What to work on.
        workers: Processes at most; by default one for each core. 1 works in this process.
        worth: Items that pay for starting a process; by default those of a light function.
        chunk: Items that a process is handed at a time.

    Yields:
        Position in `items` and result, in the order in which they are done.

    Raises:
        DxsegError: A process died, most often for want of memory. Errors of the function are
            raised as they are.
    """
    processes = min(count_workers(workers), len(items) // (worth or ITEMS_WORTH_A_PROCESS))
    if processes <= 1:
        for position, item in enumerate(items):
            yield position, function(item)
        return
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_leave_interrupts_to_the_parent,
    )
    try:
        yield from _as_completed(pool, function, items, processes * _CHUNKS_AHEAD, chunk)
    except BrokenProcessPool as error:
        raise DxsegError(
            f"one of {processes} processes ended without a word, most often for want of memory; "
            "try fewer workers; a Python script that calls this needs `if __name__ == "
            '"__main__":` around its calls'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _as_completed(
    pool: ProcessPoolExecutor,
    function: Callable[[PredictionInput], Result],
    items: Sequence[PredictionInput],
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


def _each(
    function: Callable[[PredictionInput], Result], items: Sequence[PredictionInput]
) -> list[Result]:
    return [function(item) for item in items]


def _leave_interrupts_to_the_parent() -> None:
    # Ctrl-C reaches every process of a terminal; the parent ends the others in good order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
