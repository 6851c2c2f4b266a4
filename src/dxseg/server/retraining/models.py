"""The trained models that a server may use: their figures, and which of them is in use."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files.table import model_name
from dxseg.inference.model_folder import read_info
from dxseg.io.atomic import write_json_atomic
from dxseg.io.json_io import read_json

CHOICE_FILE = "models.json"
_EVALUATIONS = (("validation", "evaluation_validation.json"), ("test", "evaluation.json"))


@dataclass(frozen=True)
class ModelFigures:
    """A trained model as the page shows it; None where it was not evaluated.

    Attributes:
        model: First digits of the SHA-256 of the weights.
        masks: Training masks of lesions.
        finished: UTC, ISO 8601.
        split: Cases of the evaluation: `validation`, or `test` if those were not evaluated.
        dice: Mean Dice of the images with a lesion.
        low: Lower end of its 95% interval.
        high: Upper end of its 95% interval.
        images: Number of these images.
    """

    model: str
    masks: int
    finished: str
    split: str | None = None
    dice: float | None = None
    low: float | None = None
    high: float | None = None
    images: int | None = None


@dataclass(frozen=True)
class Choice:
    """Content of `models.json`; runs are paths, absolute or relative to its folder.

    Attributes:
        started_with: First digits of the SHA-256 of the model that the command names. The choice
            holds for this one only.
        in_use: Run of the model in use.
        previous: Run of the model before; "" for none.
        attempted: When a training was last started or cancelled, UTC, ISO 8601; "" for never.
    """

    started_with: str
    in_use: str
    previous: str = ""
    attempted: str = ""


class ModelChoice:
    """Which run's model is in use, kept in a file across restarts; threads may share one."""

    def __init__(self, folder: Path, run: Path) -> None:
        """Read the choice, or start with a run.

        Args:
            folder: Of the trainings.
            run: Finished run that the command names.

        Raises:
            DxsegError: The run or the file of the choice cannot be read.
        """
        self._folder, self._lock = folder, threading.Lock()
        named = Choice(model_name(read_info(run / "model")), str(run.resolve()))
        kept = _read_choice(folder / CHOICE_FILE)
        self._choice = kept if kept and kept.started_with == named.started_with else named
        if not (self.in_use / "model").is_dir():
            raise DxsegError(
                f"{folder / CHOICE_FILE}: in_use is {self._choice.in_use}, which is gone; remove "
                "this file to start with the model that the command names"
            )

    @property
    def in_use(self) -> Path:
        """Run of the model in use."""
        return self._folder / self._choice.in_use

    @property
    def previous(self) -> Path | None:
        """Run of the model that can be taken back."""
        return self._folder / self._choice.previous if self._choice.previous else None

    @property
    def attempted(self) -> str:
        """When a training was last started or cancelled."""
        return self._choice.attempted

    def note_attempt(self, time: str) -> None:
        """Note that a training is started or cancelled.

        Args:
            time: UTC, ISO 8601.
        """
        with self._lock:
            self._write({"attempted": time})

    def use(self, run: Path) -> None:
        """Note that another run's model is in use; the one before becomes the previous one.

        Args:
            run: Its folder.
        """
        with self._lock:
            name = str(run)
            if run.is_relative_to(self._folder):
                name = run.relative_to(self._folder).as_posix()
            if name != self._choice.in_use:
                self._write({"in_use": name, "previous": self._choice.in_use})

    def _write(self, changes: dict[str, str]) -> None:
        changed = Choice(**{**asdict(self._choice), **changes})
        write_json_atomic(self._folder / CHOICE_FILE, asdict(changed))
        self._choice = changed


def find_run(model: Path) -> Path:
    """Find the finished run of a model that is served.

    Args:
        model: Folder of the run, or of its model.

    Raises:
        UsageError: It is no finished run: the configuration and the split of a training are its.
    """
    for run in (model, model.parent):
        if all((run / name).is_file() for name in ("run.json", "config.yaml", "splits.csv")):
            return run.resolve()
    raise UsageError(
        f"{model}: no finished run, whose configuration and split another training could have; "
        "serve the folder that `dxseg train` made, or leave --train out"
    )


def read_figures(run: Path, evaluations: Sequence[Path] = ()) -> ModelFigures:
    """Read what a finished run recorded of its model.

    Args:
        run: Its folder.
        evaluations: Other folders with an evaluation of it; used if the run has none.

    Raises:
        DxsegError: A file cannot be read or lacks a value.
    """
    remedy = "train the run again, or copy it again"
    path = run / "run.json"
    record = read_json(path, remedy)
    try:
        model = str(record["weights_sha256"])[:12]
        figures = ModelFigures(model, int(record["cases"]["train_masks"]), str(record["finished"]))
        for folder, (split, name) in itertools.product((run, *evaluations), _EVALUATIONS):
            path = folder / name
            if path.is_file():
                return ModelFigures(**{**asdict(figures), "split": split, **_dice(path)})
    except (KeyError, TypeError, ValueError) as error:
        raise DxsegError(f"{path}: {error!r}; expected the record of a run; {remedy}") from error
    return figures


def _dice(path: Path) -> dict[str, Any]:
    summary = read_json(path, "evaluate the run again with `dxseg evaluate`")
    low, high = summary["dice_lesion_ci"]
    dice, images = summary["dice_lesion"], summary["counts"]["lesion_images"]
    return {"dice": dice, "low": low, "high": high, "images": images}


def _read_choice(path: Path) -> Choice | None:
    if not path.is_file():
        return None
    try:
        return Choice(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DxsegError(
            f"{path}: cannot be read ({error}); expected which model is in use; remove it to start "
            "with the model that the command names"
        ) from error
