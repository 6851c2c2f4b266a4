"""What one process of an experiment does: train a job, evaluate it, say how it ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path

from dxseg.config.schema import RunConfig
from dxseg.evaluation.runs import is_evaluated
from dxseg.training.run_record import has_stage1

_INTERRUPTED = 130
_LONGEST = 4000  # characters of a reason: more would wait for the parent to read the pipe


@dataclass(frozen=True)
class Order:
    """A job with all that a process needs to know of it.

    Attributes:
        name: Of the job.
        dataset: Folder of the dataset.
        splits: File of splits.
        output: Folder of the job.
        config: Of the run.
        split: Which split is evaluated afterwards; None for a stage 1, which has nothing to
            evaluate.
        inputs: Argument of `train_run`, or of `train_student`, and the folder it gets.
        log: File that takes everything the process prints.
        jobs: How many such processes share the machine.
    """

    name: str
    dataset: Path
    splits: Path
    output: Path
    config: RunConfig
    split: str | None
    inputs: dict[str, Path]
    log: Path
    jobs: int

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        if self.split is None:
            return has_stage1(self.output / "stage1")
        return is_evaluated(self.output, self.split)


def work(order: Order, answer: Connection) -> None:
    """Do a job; the process ends with it, without a word to the terminal.

    Args:
        order: The job.
        answer: Gets the reason if the job fails.
    """
    from dxseg.errors import DxsegError

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the others
    _exit_with_parent()
    _redirect_output(order.log)
    try:
        _do(order)
    except DxsegError as error:
        sys.stderr.write(f"error: {error}\n")
        answer.send(str(error)[:_LONGEST])
    except Exception as error:
        traceback.print_exc()
        answer.send(f"{type(error).__name__}: {error}"[:_LONGEST])
        raise SystemExit(1) from error


def _do(order: Order) -> None:
    import torch
    from rich.console import Console

    from dxseg.evaluation.evaluate import evaluate_run
    from dxseg.training.distillation import train_student
    from dxseg.training.run import train_run, train_stage1_run

    torch.set_num_threads(max(1, torch.get_num_threads() // order.jobs))
    console = Console(file=sys.stdout, width=120)
    if order.split is None:
        train_stage1_run(
            order.dataset, order.output, order.config, splits_path=order.splits, console=console
        )
        return
    if "teacher" in order.inputs:
        train_student(
            output=order.output,
            config=order.config,
            dataset_path=order.dataset,
            console=console,
            **order.inputs,
        )
    else:
        train_run(
            order.dataset,
            order.output,
            order.config,
            splits_path=order.splits,
            console=console,
            **order.inputs,
        )
    evaluate_run(order.output, split=order.split, dataset=order.dataset)


def _exit_with_parent() -> None:
    """End at once when the parent is gone: another call may continue the same run."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(_INTERRUPTED)

    threading.Thread(target=wait, daemon=True).start()


def _redirect_output(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    stream = log.open("a", encoding="utf-8", buffering=1)
    # The numbers, not the names: C++ code prints too.
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    sys.stdout = sys.stderr = stream
