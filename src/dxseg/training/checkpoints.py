"""Checkpoint files: complete or absent, plain tensors only, and checked for damage."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from dxseg.errors import DxsegError
from dxseg.io.atomic import replace_durably


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoints that stay complete when the process is killed.

    Lightning writes into the system's temporary folder and moves the file from there, which is a
    copy where that is another file system.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: Any,
        storage_options: Any = None,  # noqa: ARG002
    ) -> None:
        """Write beside the old file, then take its name.

        Raises:
            OSError: such as of a full disk; the old checkpoint stays.
        """
        # Always the same name: what a killed process leaves is written over, not added to.
        temporary = Path(path).with_name(f".{Path(path).name}.part")
        try:
            with temporary.open("wb") as stream:
                torch.save(checkpoint, stream)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            # torch hides the reason behind a complaint about positions in the file.
            reason = error.__context__ if isinstance(error, RuntimeError) else error
            if isinstance(reason, OSError):
                raise OSError(reason.errno, reason.strerror, str(path)) from error
            raise
        replace_durably(temporary, Path(path))

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Read a checkpoint, whose folder may have been moved since."""
        checkpoint = super().load_checkpoint(path, *arguments, **options)
        _follow_move(checkpoint.get("callbacks", {}).values(), Path(path))
        return checkpoint


def _follow_move(states: Collection[Any], path: Path) -> None:
    """Name files of callbacks where they are now: else Lightning forgets which epoch was best.

    Args:
        states: of the callbacks; changed.
        path: the checkpoint. The callback that wrote it names it at the place it had then.
    """
    here = path.parent.resolve()  # as Lightning does
    saved = [state for state in states if isinstance(state, dict) and "dirpath" in state]
    names = [Path(state["best_model_path"]) for state in saved]
    moved = {str(name.parent) for name in names if name.name == path.name} - {str(here)}
    for state in saved:
        if state["dirpath"] in moved:
            state["dirpath"] = str(here)
            for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                state[key] = state[key] and str(here / Path(state[key]).name)
            files = state["best_k_models"]
            state["best_k_models"] = {
                str(here / Path(file).name): score for file, score in files.items()
            }


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of `dxseg.training.trainer.fit_stage`.

    Raises:
        DxsegError: it is damaged, be it by one bit, or it is something else.
    """
    try:
        # torch does not look at the checksums that it writes.
        with zipfile.ZipFile(path) as records:
            broken = records.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(f"checksum of {broken}")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        content["state_dict"], content["global_step"], content["callbacks"]["MetricsTable"]
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        raise DxsegError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}); remove it to start "
            "the stage again"
        ) from error
    return content
