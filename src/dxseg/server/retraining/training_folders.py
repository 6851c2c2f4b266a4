"""The folders of a dataset's trainings: numbered, of one server at a time, and few."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dxseg.errors import DxsegError, UsageError
from dxseg.server.retraining.job import JOB


class TrainingFolders:
    """The folder beside a dataset that holds its trainings, locked for this process."""

    def __init__(self, root: Path) -> None:
        """Create the folder, and lock it.

        Args:
            root: The folder.

        Raises:
            UsageError: Another server has it.
            DxsegError: It cannot be written to.
        """
        # Not of one thread: the server opens and closes it in different ones.
        self.root, self._lock = root, FileLock(root / ".lock", thread_local=False)
        try:
            root.mkdir(exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(
                f"{root}: another server trains on this dataset; stop it, or leave --train out"
            ) from error
        except OSError as error:
            raise DxsegError(
                f"{root}: trainings cannot be kept there ({error.strerror}); make it a folder that "
                "can be written to, or leave --train out"
            ) from error

    def newest(self) -> Path | None:
        """The last training; None without one."""
        return max(self.trainings(), default=None)

    def trainings(self) -> list[Path]:
        """All trainings."""
        return [folder for folder in self._all() if (folder / JOB).is_file()]

    @contextmanager
    def made(self, kept: Collection[Path], needed: int) -> Iterator[Path]:
        """The next folder, for the block to fill; removed again if the block fails.

        Args:
            kept: Trainings whose models are still needed; the others are removed.
            needed: Bytes that the training needs on the disk.

        Raises:
            DxsegError: Less is free.
        """
        last = max((int(one.name) for one in self._all()), default=0)
        for folder in self._all():
            if folder not in kept:
                remove(folder)
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise DxsegError(
                f"{self.root}: {free >> 20} MB are free, and a training needs about "
                f"{needed >> 20} MB; free some space"
            )
        folder = self.root / f"{last + 1:04}"
        try:
            yield folder
        except BaseException:
            remove(folder)
            raise

    def close(self) -> None:
        """Unlock the folder."""
        self._lock.release()

    def _all(self) -> list[Path]:
        return [one for one in self.root.iterdir() if one.name.isdecimal() and one.is_dir()]


def remove(folder: Path) -> None:
    """Remove a training.

    Args:
        folder: Of the training.
    """
    # What makes it a training first: half of a folder is not taken for one.
    (folder / JOB).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
