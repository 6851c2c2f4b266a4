"""Checkpoints of a run whose folder has moved."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from dxseg.training.checkpoints import CheckpointFiles


def test_a_folder_that_has_moved_keeps_its_best_epoch(tmp_path: Path) -> None:
    """The files of a user's own callback stay where they are."""
    old, new, elsewhere = (tmp_path / name for name in ("old", "new", "elsewhere"))
    for folder in (old, elsewhere):
        folder.mkdir()
    best, last, users = (ModelCheckpoint(folder) for folder in (old, old, elsewhere))
    last.best_model_path = str(old / "last.ckpt")
    for callback, folder in ((best, old), (users, elsewhere)):
        callback.best_model_path = callback.kth_best_model_path = str(folder / "best.ckpt")
        callback.best_model_score = torch.tensor(0.75)
        callback.best_k_models = {str(folder / "best.ckpt"): torch.tensor(0.75)}
    states = {name: one.state_dict() for name, one in zip("abc", (best, last, users), strict=True)}
    files = CheckpointFiles()
    files.save_checkpoint({"callbacks": states}, old / "last.ckpt")
    old.rename(new)

    loaded = files.load_checkpoint(new / "last.ckpt", weights_only=True)["callbacks"]
    again = ModelCheckpoint(new)
    again.load_state_dict(loaded["a"])
    assert again.best_model_score == 0.75
    assert again.best_model_path == again.kth_best_model_path == str(new / "best.ckpt")
    assert list(again.best_k_models) == [str(new / "best.ckpt")]
    assert loaded["c"] == states["c"]
