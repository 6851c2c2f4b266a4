"""What stops a training from outside, told so that it can be mended."""

from __future__ import annotations

import re
from pathlib import Path

from dxseg.errors import DxsegError

_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?([\d, ]+)\) (.*)")
_NO_MEMORY = ("allocate memory", "out of memory", "unable to allocate", "memoryerror")


def explain_failure(error: Exception, folder: Path) -> DxsegError | None:
    """Say what an error in the middle of a stage means to its user.

    Args:
        error: as Lightning and torch raised it.
        folder: of the stage.

    Returns:
        What to raise instead; None where the error has to be seen as it is.
    """
    # Which of the two torch raises first, "killed by signal" or "exited", is a matter of chance.
    text = "\n".join(str(one) for one in (error.__cause__ or error.__context__, error) if one)
    worker = _WORKER.search(text)
    again = "then the same command continues"
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
    return None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no more is known"])[-1].strip()
