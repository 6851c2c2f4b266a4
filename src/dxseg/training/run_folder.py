"""The folder of a run: whether a training may go on in it, and nobody else meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dxseg.config.presets import read_config
from dxseg.config.schema import RunConfig
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.io.file_lock import exclusive_lock
from dxseg.training.distributed import run_on_rank_zero

_PATIENCE = 10.0
"""Seconds: the processes of a study that was killed take a moment to notice it."""


@contextmanager
def locked_run_folder(output: Path) -> Iterator[None]:
    """Keep a second training out of a run's folder; processes that train together count as one.

    Raises:
        DxsegError: another training is in it.
    """
    with ExitStack() as stack:
        run_on_rank_zero(lambda: stack.enter_context(exclusive_lock(output, "run", _PATIENCE)))
        yield


def check_folder(output: Path, config: RunConfig, dataset: Dataset) -> None:
    """Check that the folder is free, or that its run is the one asked for.

    Raises:
        DxsegError: it holds something else, or a run of another configuration or dataset.
    """
    path = output / "config.yaml"
    if path.is_file():
        recorded = read_config(path)
        if recorded != config:
            theirs, ours = recorded.model_dump(), config.model_dump()
            changed = [key for key in ours if ours[key] != theirs[key]]
            details = "; ".join(f"{key}: {theirs[key]} there, {ours[key]} asked" for key in changed)
            raise DxsegError(
                f"{output}: holds a run of another configuration ({details}); choose another "
                "folder with --out, or repeat the options of that run to continue it"
            )
    elif output.is_dir() and any(output.iterdir()):
        raise DxsegError(f"{output}: not empty and not a run; choose another folder with --out")
    digest = output / "dataset.sha256"
    if digest.is_file() and digest.read_text(encoding="utf-8").strip() != dataset.digest():
        raise DxsegError(
            f"{output}: was started on another dataset, or {dataset.root} has changed since; "
            "choose another folder with --out"
        )
