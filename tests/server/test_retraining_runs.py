"""A real training beside a server: killed, it is continued to its end; cut off, it ends."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dxseg.data.readers.masks import read_mask
from dxseg.data.table.annotations import save_mask
from dxseg.data.table.dataset import Dataset
from dxseg.inference.model_folder import read_info
from dxseg.inference.predictor import Predictor
from dxseg.server.case_queue import CaseQueue
from dxseg.server.retraining import process, training_process
from dxseg.server.retraining.trainer import Trainer
from retrained import shown
from serving import until

PATIENCE = 900
"""Seconds: the training has the lowest priority on a busy machine."""


def patiently(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "has not happened"
        time.sleep(0.1)


@pytest.fixture
def served(phantoms: Path, trained: Path, tmp_path: Path) -> Callable[[], Trainer]:
    """Makes the trainer of a dataset with three new masks, in place of those before."""
    root = tmp_path / "data"
    shutil.copytree(phantoms, root, ignore=shutil.ignore_patterns(".cache"))
    dataset = Dataset.load(root)
    splits = pd.read_csv(trained / "splits.csv")
    hidden = splits["split"].eq("train") & ~splits["use_mask"]
    for row in dataset.cases[hidden & ~dataset.lesion_free].head(3).itertuples():
        path = dataset.mask_path(row)
        assert path is not None
        save_mask(root, str(row.case_id), read_mask(path, 1), "other", previous=str(row.mask))
    info = read_info(trained / "model")
    return lambda: Trainer(CaseQueue(root, info), trained, Predictor.from_folder)


QUICKLY = "from dxseg.server.retraining import process; process.NICENESS = 0; process.main()"
"""The process itself, at the priority of the test."""


@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE)
def test_a_training_that_was_killed_ends_with_a_model_that_is_compared(
    served: Callable[[], Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_process, "_COMMAND", (sys.executable, "-P", "-c", QUICKLY))
    trainer = served()
    folder = trainer.folder / "0001"
    trainer.begin()
    patiently((folder / "run/stage1/metrics.csv").is_file)
    os.kill(trainer._running._process.pid, signal.SIGKILL)
    until(lambda: trainer.status().state == "stopped")
    trainer.begin()
    patiently(lambda: trainer.status().state != "running")
    status = shown(trainer)
    assert status["state"] == "done", status["problem"]
    assert not (folder / "failure.txt").exists()
    assert status["masks"] == status["in_use"]["masks"] + 3 == status["offered"]["masks"]
    tables = [
        pd.read_csv(folder / name / "per_image_validation.csv").set_index("case_id")
        for name in ("run", "before")
    ]
    assert tables[0].index.equals(tables[1].index), "the same cases"
    dice = [table["dice"][table["true_area"] > 0] for table in tables]
    assert status["comparison"]["images"] == len(dice[0]) > 0
    assert status["comparison"]["difference"] == pytest.approx(float(np.mean(dice[0] - dice[1])))
    models: list[Predictor] = []
    trainer.use(status["offered"]["model"], models.append)
    assert models[0].info.weights_sha256[:12] == status["offered"]["model"]
    assert trainer.status().new_masks == 0
    trainer.close()


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
def test_a_full_disk_while_it_trains_is_told_and_the_training_stays(
    served: Callable[[], Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = ("bash", "-c", 'ulimit -f 1; exec "$@"', "bash", sys.executable, "-P", "-c", QUICKLY)
    trainer = served()
    monkeypatch.setattr(training_process, "_COMMAND", limited)
    trainer.begin()
    patiently(lambda: trainer.status().state == "stopped")
    assert "File too large; free some space" in trainer.status().problem
    assert (trainer.folder / "0001/job.json").is_file()
    trainer.close()


def test_the_process_ends_with_the_server(served: Callable[[], Trainer]) -> None:
    trainer = served()
    trainer.begin()
    running = trainer._running._process
    running.stdin.close()  # as when the server is killed
    assert running.wait(PATIENCE) == 143
    trainer.close()


def test_what_the_process_cannot_do_is_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(folder: Path, job: object) -> None:
        raise OSError(28, "No space left on device", str(folder / "run/stage2/last.ckpt"))

    monkeypatch.setattr(process.sys, "argv", ["process", str(tmp_path)])
    monkeypatch.setattr(process.os, "nice", lambda _: 0)
    monkeypatch.setattr(process.threading, "Thread", partial(_NoThread))
    monkeypatch.setattr(process, "read_job", lambda _: None)
    monkeypatch.setattr(process, "train_and_compare", full)
    with pytest.raises(SystemExit) as ended:
        process.main()
    assert ended.value.code == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"{tmp_path}/run/stage2/last.ckpt: No space left on device")
    assert "free some space" in last


class _NoThread:
    """The thread that would end this process with its standard input."""

    def __init__(self, **_: object) -> None: ...

    def start(self) -> None: ...
