"""Jobs in processes of their own: in order of need, several at a time, each with its log."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from dxseg.experiments.worker import Order, work
from dxseg.io.progress import progress_bar

# What every job imports: read once by the server that the processes are forked from.
_PRELOADED = [
    "dxseg.experiments.worker",
    "dxseg.training.run",
    "dxseg.evaluation.evaluate",
    "dxseg.inference.predictor",
    "monai.losses.dice",
    "timm",
]
_LOG_LINES = 5
_PATIENCE = 5.0  # seconds between asking a process to end and ending it


@dataclass
class _Running:
    order: Order
    process: BaseProcess
    answer: Connection

    def reason(self) -> str | None:
        """Why the job failed, once its process has ended; None if it did not."""
        self.process.join()
        try:
            return str(self.answer.recv())
        except EOFError:
            pass  # closed without a word, as a process does that succeeds, or that is killed
        finally:
            self.answer.close()
        if self.process.exitcode == 0 and self.order.done:
            return None
        return (
            f"the process ended without a word (exit code {self.process.exitcode}), most often for "
            f"want of memory; its log ends: {last_lines(self.order.log)}"
        )


def run_orders(
    orders: Sequence[Order],
    needs: Mapping[str, Sequence[str]],
    *,
    jobs: int,
    console: Console,
    ended: Callable[[dict[str, str]], None],
) -> dict[str, str]:
    """Do every order that is not done; one that fails does not stop the others.

    Ctrl-C ends all processes; what was finished stays, and the same call continues the rest.

    Args:
        orders: In the order in which they are started.
        needs: For each order the names of those that must be done before.
        jobs: Processes at a time.
        console: Where progress and failures are told.
        ended: Called after each order, done or failed, with the failures so far.

    Returns:
        Why orders failed, by name.
    """
    failures: dict[str, str] = {}
    done = {order.name for order in orders if order.done}
    waiting = [order for order in orders if order.name not in done]
    if not waiting:
        return failures
    running: list[_Running] = []
    with _bar(console, len(orders), len(done)) as (bar, task), _ending(running):
        while waiting or running:
            _fail_followers(waiting, needs, failures)
            _start(waiting, running, needs, done, jobs)
            bar.update(
                task,
                completed=len(orders) - len(waiting) - len(running),
                note=", ".join(one.order.name for one in running),
            )
            for one in _ended(running):
                reason = one.reason()
                if reason is None:
                    done.add(one.order.name)
                else:
                    failures[one.order.name] = reason
                    console.print(f"failed: {one.order.name}: {reason}", soft_wrap=True)
                ended(failures)
    return failures


def last_lines(log: Path) -> str:
    """The last lines of a log, as one line of text."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return " | ".join(line.strip() for line in lines[-_LOG_LINES:] if line.strip()) or "(empty)"


def _fail_followers(
    waiting: list[Order], needs: Mapping[str, Sequence[str]], failures: dict[str, str]
) -> None:
    """Fail what needs something that has failed; orders come after what they need."""
    for order in list(waiting):
        broken = next((name for name in needs[order.name] if name in failures), None)
        if broken is not None:
            failures[order.name] = f"it needs {broken}, which failed: {failures[broken]}"
            waiting.remove(order)


def _start(
    waiting: list[Order],
    running: list[_Running],
    needs: Mapping[str, Sequence[str]],
    done: set[str],
    jobs: int,
) -> None:
    context = _context()
    for order in list(waiting):
        if len(running) >= jobs:
            return
        if done.issuperset(needs[order.name]):
            waiting.remove(order)
            receiver, sender = context.Pipe(duplex=False)
            # Not a daemon: those may not have processes that load batches.
            process = context.Process(target=work, args=(order, sender))  # type: ignore[attr-defined]
            process.start()
            sender.close()
            running.append(_Running(order, process, receiver))


def _ended(running: list[_Running]) -> list[_Running]:
    """Wait until some process has ended; those are taken off the list."""
    by_sentinel = {one.process.sentinel: one for one in running}
    finished = [by_sentinel[sentinel] for sentinel in wait(list(by_sentinel))]  # type: ignore[index]
    for one in finished:
        running.remove(one)
    return finished


@contextmanager
def _ending(running: list[_Running]) -> Iterator[None]:
    """End what still runs when the block is left early."""
    try:
        yield
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.join(_PATIENCE)
            one.process.kill()
            one.process.join()


@contextmanager
def _bar(console: Console, total: int, done: int) -> Iterator[tuple[Progress, TaskID]]:
    with progress_bar(console) as bar:
        yield bar, bar.add_task("Runs", total=total, completed=done, note="")


def _context() -> BaseContext:
    """Fresh processes; where the system can, forked from one that has read the libraries."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context
