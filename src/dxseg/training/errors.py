"""Explains what stops a training, and silences advice that does not apply."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path

from torch.multiprocessing.spawn import ProcessException

from dxseg.errors import DxsegError, UsageError

_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?([\d, ]+)\) (.*)")
_NO_MEMORY = ("allocate memory", "out of memory", "unable to allocate", "memoryerror")
_RAISED = re.compile(r"^dxseg\.errors\.(DxsegError|UsageError): (.*)", re.MULTILINE | re.DOTALL)


def explain_failure(error: Exception, folder: Path) -> DxsegError | None:
    """Explain an error in the middle of a stage to its user.

    Args:
        error: as Lightning and torch raised it; one of a spawned process comes as the text of its
            traceback.
        folder: of the stage.

    Returns:
        What to raise instead; None if the error has to be seen as it is.
    """
    # Which of the two torch raises first, "killed by signal" or "exited", is a matter of chance.
    text = "\n".join(str(one) for one in (error.__cause__ or error.__context__, error) if one)
    worker = _WORKER.search(text)
    again = "then the same command continues"
    raised = _RAISED.search(text)
    if isinstance(error, ProcessException) and raised:
        kind = UsageError if raised[1] == "UsageError" else DxsegError
        return kind(raised[2].strip())
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _NO_MEMORY):
        where = "a data worker" if "DataLoader worker" in text else "the training"
        return DxsegError(
            f"{folder}: out of memory in {where} ({_last_line(text)}); lower data.workers, "
            "data.batch_size or data.image_size, or use a machine with more memory"
        )
    if worker and "Bus error" in text:
        return DxsegError(
            f"{folder}: a data worker (process {worker[1]}) ran out of shared memory (/dev/shm); "
            f"set data.workers=0 or give the container more of it (docker: --shm-size), {again}"
        )
    if worker:
        return DxsegError(
            f"{folder}: a data worker (process {worker[1]}) ended: {worker[2].strip().rstrip('.')}."
            " Most often the system ended it for want of memory (dmesg and the scheduler's log "
            f"say so); lower data.workers or ask for more memory, {again}"
        )
    if "does not have a deterministic implementation" in text:
        return DxsegError(
            f"{folder}: device.deterministic is on, but {text.partition('.')[0]}; set "
            "device.deterministic=false, or compute on the CPU (device.accelerator=cpu)"
        )
    if isinstance(error, ProcessException):
        return DxsegError(
            f"{folder}: training process {error.error_index} ended: {_last_line(text)}; the same "
            "command continues the run"
        )
    return None


def silence_advice() -> None:
    """Silence Lightning's advice that does not apply here; errors still show."""
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",
        ".*LeafSpec.*is deprecated.*",
        ".*in eval mode at the start of training.*",  # the frozen branch, on purpose
        ".*validation_step.*no.*val_dataloader.*",
        ".*recommended to use .*sync_dist=True.*",  # torchmetrics has synchronized it already
        ".*compute.*was called before the .*update.*",  # other processes have had the images
    ):
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no more is known"])[-1].strip()
