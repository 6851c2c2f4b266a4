"""What one process of an experiment does: train a job, evaluate it, report how it ended."""

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
from typing import Any

from dxseg.config.schema import RunConfig
from dxseg.evaluation.runs import is_evaluated
from dxseg.io.progress import console
from dxseg.training.run_record import has_stage1

_INTERRUPTED = 130
_MAX_REASON = 4000  # characters: the pipe takes no more until the parent reads it


@dataclass(frozen=True)
class JobSpec:
    """A job with all that its process needs.

    Attributes:
        name: Name of the job.
        dataset: Folder of the dataset.
        splits: Splits file.
        output: Folder of the job.
        config: Configuration of the run.
        split: Split that is evaluated afterwards; None for a stage 1, which is not evaluated.
        inputs: Argument of `train_run`, or of `distill_run`, and the folder it gets.
        log: File for everything the process prints.
        jobs: Number of such processes that share the machine.
    """

    name: str
    dataset: Path
    splits: Path
    output: Path
    config: RunConfig
    split: str | None
    inputs: dict[str, Any]
    log: Path
    jobs: int

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        if self.split is None:
            return has_stage1(self.output / "stage1")
        return is_evaluated(self.output, self.split)


def run_job(spec: JobSpec, reasons: Connection) -> None:
    """Run a job as the only work of this process; nothing is printed to the terminal.

    Args:
        spec: The job.
        reasons: Receives the reason if the job fails.
    """
    from dxseg.errors import DxsegError

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends the others
    _exit_with_parent()
    _redirect_output(spec.log)
    try:
        _train_and_evaluate(spec)
    except DxsegError as error:
        sys.stderr.write(f"error: {error}\n")
        reasons.send(str(error)[:_MAX_REASON])
    except Exception as error:
        traceback.print_exc()
        reasons.send(f"{type(error).__name__}: {error}"[:_MAX_REASON])
        raise SystemExit(1) from error


def _train_and_evaluate(spec: JobSpec) -> None:
    import torch

    from dxseg.evaluation.evaluate import evaluate_run, open_run
    from dxseg.training.distillation import distill_run
    from dxseg.training.run import train_run, train_stage1_run

    torch.set_num_threads(max(1, torch.get_num_threads() // spec.jobs))
    if spec.split is None:
        train_stage1_run(spec.dataset, spec.output, spec.config, splits_path=spec.splits)
        return
    if "teacher" in spec.inputs:
        inputs = dict(spec.inputs)
        distill_run(
            [inputs.pop("teacher")],
            output=spec.output,
            config=spec.config,
            dataset_path=spec.dataset,
            **inputs,
        )
    else:
        train_run(
            spec.dataset,
            spec.output,
            spec.config,
            splits_path=spec.splits,
            **spec.inputs,
        )
    evaluate_run(spec.output, *open_run(spec.output, spec.dataset), split=spec.split)


def _exit_with_parent() -> None:
    """Exit as soon as the parent is gone: another call may continue the same run."""
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
    # The descriptors, not only Python's streams: C++ code prints too.
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    sys.stdout = sys.stderr = stream
    console.width = 120
