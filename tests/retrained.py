"""For tests of training beside a server: a finished run, and a process that trains nothing.

The process obeys a file `orders` in the folder of the trainings: a test says there when a stage
begins, when the training is done, and how it fails. That a real training works is another test.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brightness import Maker
from dxseg.config.schema import RunConfig
from dxseg.data.table.annotations import Annotation, save_mask
from dxseg.data.table.dataset import Dataset
from dxseg.inference.predictor import Predictor
from dxseg.io.atomic import write_json_atomic
from dxseg.server.case_queue import CaseQueue
from dxseg.server.retraining import training_process
from dxseg.server.retraining.trainer import Trainer
from serving import squares

FIRST, SECOND = "ab" * 32, "cd" * 32
"""Digests of the weights of the run that is served, and of the one that is trained."""

DICE = {"dice_lesion": 0.5, "dice_lesion_ci": [0.25, 0.75], "counts": {"lesion_images": 2}}
COMPARED = {"difference": 0.1, "low": -0.1, "high": 0.3, "p_value": 0.2, "images": 2, "groups": 2}

_PROCESS = """
import json, pathlib, shutil, sys, time
folder = pathlib.Path(sys.argv[1])
orders, run = folder.parent / "orders", folder / "run"
(folder / "starts").open("a").write("x")
while True:
    order = orders.read_text() if orders.exists() else ""
    if order.startswith("fail"):
        sys.stderr.write("a warning\\n" + order.removeprefix("fail ") + "\\n")
        sys.exit(1)
    if order.startswith("step"):
        (run / "stage2").mkdir(parents=True, exist_ok=True)
        rows = "epoch,step\\n0," + order.split()[1] + "\\n"
        part = run / "stage2/.part"
        part.write_text(rows)
        part.replace(run / "stage2/metrics.csv")
    if order == "finish":
        shutil.copytree(folder.parent / "trained", run, dirs_exist_ok=True)
        (folder / ".part").write_text(json.dumps({compared!r}))
        (folder / ".part").replace(folder / "comparison.json")
        sys.exit(0)
    time.sleep(0.02)
"""


def write_run(folder: Path, digest: str, splits: pd.DataFrame, *, masks: int | None = 1) -> Path:
    """The files of a finished run that a server reads; its configuration is of `unet`."""
    info = Maker()(digest=digest, lesion_free=("normal",)).info
    (folder / "model").mkdir(parents=True)
    (folder / "model/model.json").write_text(info.model_dump_json())
    (folder / "model/model.safetensors").write_bytes(b"weights")
    unet = {"architecture": "unet", "encoder_init": "pretrained"}
    values = {"method": "unet", "model": unet, "split": {"masks": masks}}
    config = RunConfig.model_validate(values)
    (folder / "config.yaml").write_text(config.to_yaml())
    splits.to_csv(folder / "splits.csv", index=False)
    record = {"weights_sha256": digest, "dataset": "data", "finished": "2026-01-02T03:04:05+00:00"}
    write_json_atomic(folder / "run.json", record | {"cases": {"train_masks": 1}})
    write_json_atomic(folder / "evaluation_validation.json", DICE)
    return folder


def split_table(count: int = 8) -> pd.DataFrame:
    """Cases 0 to 4 and the last, a lesion-free one, train; 5 validates, 6 tests."""
    split = ["train"] * 5 + ["validation", "test", "train"]
    used = [True, False, False, False, False, True, True, True]
    names = [f"case{number}" for number in range(count)]
    fold = [0] * 6 + [pd.NA, 0]
    table = {"case_id": names, "group": range(count), "split": split, "fold": fold}
    return pd.DataFrame(table | {"use_mask": used})


class Loop:
    """A dataset, a run that is served, and a trainer whose process obeys."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir(exist_ok=True)
        self.root = squares(folder / "data", 8).root
        for given in ("case0", "case5", "case6"):
            self.save(given)
        (self.root / "annotations.csv").unlink()  # given with the dataset
        self.run = write_run(folder / "run", FIRST, split_table())
        self.folder = folder / "data-training"
        self.folder.mkdir()
        write_run(self.folder / "trained", SECOND, split_table())
        code = _PROCESS.replace("{compared!r}", repr(COMPARED))
        monkeypatch.setattr(training_process, "_COMMAND", (sys.executable, "-S", "-c", code))
        self.opened: list[Trainer] = []
        self.served: list[Predictor] = []

    def save(self, case_id: str) -> Annotation:
        """Save a mask for a case, as the page does."""
        row = Dataset.load(self.root).cases.set_index("case_id").loc[case_id]
        mask = np.zeros((48, 64), np.uint8)
        mask[12:18, 30:45] = 1
        return save_mask(self.root, case_id, mask, "other", previous=row["mask"])

    def trainer(self, **options: Any) -> Trainer:
        cases = CaseQueue(self.root, Maker()(lesion_free=("normal",)).info)
        self.opened.append(Trainer(cases, self.run, self.load, **options))
        return self.opened[-1]

    def load(self, folder: Path) -> Predictor:
        digest = FIRST if folder.parent == self.run else SECOND
        return Maker()(digest=digest, lesion_free=("normal",))

    def order(self, text: str) -> None:
        part = self.folder / ".part"
        part.write_text(text)
        part.replace(self.folder / "orders")

    def starts(self) -> dict[str, int]:
        """How often the process of each training was started."""
        found = self.folder.glob("*/starts")
        return {path.parent.name: path.stat().st_size for path in found}

    def close(self) -> None:
        for trainer in self.opened:
            trainer.close()


def shown(trainer: Trainer) -> dict[str, Any]:
    return asdict(trainer.status())
