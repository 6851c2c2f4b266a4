"""Jobs in processes of their own: in order of dependency, several at a time, each with its log.

Not `concurrent.futures`: there, one process that the system kills for its memory breaks the whole
pool, and here the other jobs go on.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from rich.progress import Progress, TaskID

from dxseg.experiments.worker import JobSpec, run_job
from dxseg.io.progress import console, progress_bar

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
_TIMEOUT = 5.0  # seconds between terminating a process and killing it


@dataclass
class _Running:
    spec: JobSpec
    process: BaseProcess
    reasons: Connection

    def failure(self) -> str | None:
        """Why the job failed, once its process has ended; None if it did not."""
        self.process.join()
        try:
            return str(self.reasons.recv())
        except EOFError:
            pass  # closed without a reason, as by a process that succeeds, or that is killed
        finally:
            self.reasons.close()
        if self.process.exitcode == 0 and self.spec.done:
            return None
        return (
            f"the process ended without a message (exit code {self.process.exitcode}), most often "
            f"for lack of memory; its log ends: {last_lines(self.spec.log)}"
        )


def run_jobs(
    specs: Sequence[JobSpec],
    needs: Mapping[str, Sequence[str]],
    *,
    jobs: int,
    ended: Callable[[dict[str, str]], None],
) -> dict[str, str]:
    """Run every job that is not done; one that fails does not stop the others.

    Ctrl-C ends all processes; finished jobs stay, and the same call continues with the rest.

    Args:
        specs: The jobs, in the order in which they are started.
        needs: For each job the names of those that must be done before.
        jobs: Number of processes at a time.
        ended: Called after each job, done or failed, with the failures so far.

    Returns:
        Reasons of failed jobs, by name.
    """
    failures: dict[str, str] = {}
    done = {spec.name for spec in specs if spec.done}
    waiting = [spec for spec in specs if spec.name not in done]
    if not waiting:
        return failures
    running: list[_Running] = []
    with _bar(len(specs), len(done)) as (bar, task), _terminate_on_exit(running):
        while waiting or running:
            _fail_dependents(waiting, needs, failures)
            _start(waiting, running, needs, done, jobs)
            bar.update(
                task,
                completed=len(specs) - len(waiting) - len(running),
                note=", ".join(one.spec.name for one in running),
            )
            for one in _wait_for_any(running):
                reason = one.failure()
                if reason is None:
                    done.add(one.spec.name)
                else:
                    failures[one.spec.name] = reason
                    console.print(f"failed: {one.spec.name}: {reason}", soft_wrap=True)
                ended(failures)
    return failures


def last_lines(log: Path) -> str:
    """Return the last lines of a log as one line of text."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return " | ".join(line.strip() for line in lines[-_LOG_LINES:] if line.strip()) or "(empty)"


def _fail_dependents(
    waiting: list[JobSpec], needs: Mapping[str, Sequence[str]], failures: dict[str, str]
) -> None:
    """Fail the jobs that need a failed one; jobs are listed after those that they need."""
    for spec in list(waiting):
        broken = next((name for name in needs[spec.name] if name in failures), None)
        if broken is not None:
            failures[spec.name] = f"it needs {broken}, which failed: {failures[broken]}"
            waiting.remove(spec)


def _start(
    waiting: list[JobSpec],
    running: list[_Running],
    needs: Mapping[str, Sequence[str]],
    done: set[str],
    jobs: int,
) -> None:
    context = _context()
    for spec in list(waiting):
        if len(running) >= jobs:
            return
        if done.issuperset(needs[spec.name]):
            waiting.remove(spec)
            receiver, sender = context.Pipe(duplex=False)
            # Not a daemon: daemons may not start the worker processes of a DataLoader.
            process = context.Process(target=run_job, args=(spec, sender))  # type: ignore[attr-defined]
            process.start()
            sender.close()
            running.append(_Running(spec, process, receiver))


def _wait_for_any(running: list[_Running]) -> list[_Running]:
    """Wait until at least one process has ended, and remove those from the list."""
    by_sentinel = {one.process.sentinel: one for one in running}
    finished = [by_sentinel[sentinel] for sentinel in wait(list(by_sentinel))]  # type: ignore[index]
    for one in finished:
        running.remove(one)
    return finished


@contextmanager
def _terminate_on_exit(running: list[_Running]) -> Iterator[None]:
    """End the processes that still run when the block is left."""
    try:
        yield
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.join(_TIMEOUT)
            one.process.kill()
            one.process.join()


@contextmanager
def _bar(total: int, done: int) -> Iterator[tuple[Progress, TaskID]]:
    with progress_bar(console) as bar:
        yield bar, bar.add_task("Runs", total=total, completed=done, note="")


def _context() -> BaseContext:
    """Fresh processes; where the system can, forked from one that has imported the libraries."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context
