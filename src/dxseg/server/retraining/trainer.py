"""Trains beside the server: one training at a time, continued after a kill; offers its model.

Everything about a training is in its folder (`dxseg.server.retraining.job`); this is only who may
start, end and use it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dxseg.data.table.annotations import ANNOTATIONS_FILE, Annotation
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.records import now, read_records
from dxseg.errors import DxsegError, UsageError, quote
from dxseg.inference.model_folder import WEIGHTS_FILE
from dxseg.inference.predictor import Predictor
from dxseg.server.case_queue import CaseQueue
from dxseg.server.retraining.job import (
    COMPARISON,
    FAILURE,
    Progress,
    UsableMasks,
    make_job,
    read_comparison,
    read_job,
    read_progress,
    usable_masks,
)
from dxseg.server.retraining.models import ModelChoice, ModelFigures, read_figures
from dxseg.server.retraining.training_folders import TrainingFolders, remove
from dxseg.server.retraining.training_process import TrainingProcess
from dxseg.server.telemetry import LOGGER

_POLL_SECONDS = 5.0
_WEIGHTS = 16
"""Free space that a training needs, in sizes of its weights: checkpoints hold the optimizer too."""

State = Literal["idle", "running", "stopped", "done"]


class TrainingStateError(DxsegError):
    """A training cannot be started, cancelled or used as things are."""


@dataclass(frozen=True)
class Status:
    """What the page shows.

    Attributes:
        state: `idle`; `running`; `stopped`, and can be continued; `done`, and its model is offered.
        new_masks: Masks that a training would add to those of the model in use.
        train_after: New masks after which a training starts by itself; None: never.
        in_use: The model in use.
        previous: The model before, which can be taken back.
        masks: Training masks of the training; None when idle.
        progress: Of a running or stopped training.
        seconds_left: Of a running training, once it can be estimated.
        problem: Why it stopped; "" otherwise.
        offered: The new model of a training that is done.
        comparison: Of the new model with the one before, as in `read_comparison`.
    """

    state: State
    new_masks: int
    train_after: int | None
    in_use: ModelFigures
    previous: ModelFigures | None
    masks: int | None = None
    progress: Progress | None = None
    seconds_left: float | None = None
    problem: str = ""
    offered: ModelFigures | None = None
    comparison: dict[str, Any] | None = None


class Trainer:
    """The trainings of one dataset; threads may share it, other servers may not.

    Attributes:
        cases: The dataset.
        root: Its folder.
        folder: Of the trainings, beside it.
    """

    def __init__(
        self,
        cases: CaseQueue,
        run: Path,
        load: Callable[[Path], Predictor],
        train_after: int | None = None,
    ) -> None:
        """Lock the trainings of a dataset for this server.

        Args:
            cases: The dataset.
            run: Finished run that the command names.
            load: Loads a model folder as the server needs it.
            train_after: New masks after which a training starts by itself; default: never.

        Raises:
            UsageError: Another server trains on this dataset, or `train_after` is below 1.
            DxsegError: The run does not fit the dataset, or a file cannot be read or written.
        """
        if train_after is not None and train_after < 1:
            raise UsageError(f"train_after {train_after}: expected at least 1")
        self.cases, self._load, self._train_after = cases, load, train_after
        self.root = cases.root
        self.folder = cases.root.with_name(f"{cases.root.name}-training")
        self._folders = TrainingFolders(self.folder)
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._running: TrainingProcess | None = None
        self._counted: tuple[Dataset, Path, UsableMasks] | None = None
        self._poll: threading.Thread | None = None
        try:
            self._models = ModelChoice(self.folder, run)
            self._usable()
        except BaseException:
            self._folders.close()
            raise

    @property
    def run(self) -> Path:
        """Run of the model in use."""
        return self._models.in_use

    def start(self) -> None:
        """Continue a training that was cut off, and look out for new masks."""
        with self._lock:
            folder = self._newest()
            if folder and not any((folder / name).is_file() for name in (COMPARISON, FAILURE)):
                self._spawn(folder)
        if self._train_after is not None:
            self._poll = threading.Thread(target=self._look_out, daemon=True)
            self._poll.start()

    def begin(self) -> None:
        """Start a training, or continue one that has stopped.

        Raises:
            TrainingStateError: One is running.
            DxsegError: There is nothing new to train on, too little space, or a file is wrong.
        """
        with self._lock:
            if self._running is not None or self._closing.is_set():
                raise TrainingStateError("a training is running; wait for its end, or cancel it")
            folder = self._newest()
            if folder is None or self._may_begin():
                folder = self._make()
            (folder / FAILURE).unlink(missing_ok=True)
            self._spawn(folder)

    def cancel(self) -> None:
        """End the training, or drop the model that it offers; what it has written is removed.

        Raises:
            TrainingStateError: There is none.
        """
        with self._lock:
            folder = self._newest()
            if folder is None:
                raise TrainingStateError("there is no training to cancel")
            self._end()
            self._models.note_attempt(now())
            remove(folder)

    def use(self, model: str, serve: Callable[[Predictor], None]) -> None:
        """Load the offered or the previous model, keep the choice, and serve it.

        Args:
            model: First digits of the SHA-256 of its weights.
            serve: Called with the model, which requests get from then on.

        Raises:
            TrainingStateError: It is neither.
            DxsegError: It cannot be loaded, or has other mask classes; nothing changes then.
        """
        with self._lock:
            offered = self._newest()
            done = offered is not None and (offered / COMPARISON).is_file()
            runs = [offered / "run"] if offered is not None and done else []
            runs += [self._models.previous] if self._models.previous else []
            run = next((one for one in runs if read_figures(one).model == model), None)
            if run is None:
                raise TrainingStateError(
                    f"model {quote(model)}: neither offered nor the previous one; reload the page"
                )
            predictor = self._load(run / "model")
            classes = self.cases.dataset().spec.mask_classes
            if predictor.info.mask_classes != classes:
                raise DxsegError(
                    f"model {model}: mask classes {predictor.info.mask_classes}, the dataset has "
                    f"{classes}; train again"
                )
            self._models.use(run)
            serve(predictor)

    def status(self) -> Status:
        """Describe training and models.

        Raises:
            DxsegError: A file of a training or a run cannot be read.
        """
        with self._lock:
            previous, folder = self._models.previous, self._newest()
            shown = Status(
                "idle",
                new_masks=self._usable().new,
                train_after=self._train_after,
                in_use=self._figures(self.run),
                previous=None if previous is None else self._figures(previous),
            )
            if folder is None:
                return shown
            job = read_job(folder)
            shown = replace(shown, masks=job.masks)
            if (folder / COMPARISON).is_file():
                offered, compared = read_figures(folder / "run"), read_comparison(folder)
                return replace(shown, state="done", offered=offered, comparison=compared)
            shown = replace(shown, progress=read_progress(folder, job))
            if self._running is None:
                return replace(shown, state="stopped", problem=self._problem(folder))
            return replace(shown, state="running", seconds_left=self._running.seconds_left())

    def close(self) -> None:
        """End the process of a training, which the next server continues. May be called again."""
        self._closing.set()
        if self._poll is not None:
            self._poll.join()
        with self._lock:
            self._end()
            self._folders.close()

    def _figures(self, run: Path) -> ModelFigures:
        compared = [one for one in self._folders.trainings() if read_job(one).model == str(run)]
        return read_figures(run, [one / "before" for one in compared])

    def _newest(self) -> Path | None:
        """The last training, unless its model is or was in use already."""
        folder = self._folders.newest()
        taken = folder is not None and folder / "run" in (self.run, self._models.previous)
        return None if taken else folder

    def _make(self) -> Path:
        kept = [run.parent for run in (self.run, self._models.previous) if run is not None]
        begun, (dataset, usable) = now(), self._counted_masks()
        weights = self.run / "model" / WEIGHTS_FILE
        with self._folders.made(kept, _WEIGHTS * weights.stat().st_size) as folder:
            make_job(folder, dataset, usable, self.run, begun)
        self._models.note_attempt(begun)
        return folder

    def _spawn(self, folder: Path) -> None:
        self._running = TrainingProcess(folder, self._ended)

    def _ended(self, process: TrainingProcess) -> None:
        with self._lock:
            if self._running is process:
                self._running = None

    def _end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.kill()

    def _problem(self, folder: Path) -> str:
        try:
            text = (folder / FAILURE).read_text(encoding="utf-8").strip()
        except OSError:
            text = ""
        return text.replace(str(self.root), "the dataset") or "cut off; it can be continued"

    def _may_begin(self) -> bool:
        folder = self._newest()
        return folder is None or (folder / COMPARISON).is_file()

    def _usable(self) -> UsableMasks:
        return self._counted_masks()[1]

    def _counted_masks(self) -> tuple[Dataset, UsableMasks]:
        """The dataset, and its masks that may be used, of one reading of the table."""
        dataset = self.cases.dataset()
        if self._counted is None or self._counted[:2] != (dataset, self.run):
            annotations = read_records(self.root, ANNOTATIONS_FILE, Annotation)
            found = usable_masks(dataset, annotations, self.run)
            self._counted = dataset, self.run, found
        return dataset, self._counted[2]

    def _look_out(self) -> None:
        assert self._train_after is not None
        while not self._closing.wait(_POLL_SECONDS):
            try:
                with self._lock:
                    saved = [one for one in self._usable().saved if one > self._models.attempted]
                    if len(saved) >= self._train_after and self._may_begin():
                        self.begin()
            except Exception:  # noqa: BLE001 - such as a table that is being edited
                LOGGER.exception("training not started")
                self._models.note_attempt(now())
