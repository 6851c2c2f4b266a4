"""`dxseg export hub`: write a run's model folder with a model card, in the layout of model hubs."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from dxseg.errors import DxsegError
from dxseg.export.model_card import CARD_FILE, model_card
from dxseg.inference.model_folder import (
    INFO_FILE,
    WEIGHTS_FILE,
    load_model_folder,
    read_limited,
)
from dxseg.io.atomic import write_bytes_atomic, write_text_atomic

_TRAINING = ("method", "seed", "dataset")
"""Notes of the training in `model.json` that are kept."""


class HubExport(BaseModel):
    """The exported folder.

    Attributes:
        destination: The folder.
        files: Their names.
        size: Their total size, bytes.
    """

    destination: Path
    files: list[str]
    size: int

    def __str__(self) -> str:
        return (
            f"Written: {self.destination}: {', '.join(self.files)}, {self.size / 1e6:.1f} MB\n"
            "Read the card, README.md, before you pass it on: it repeats your names of dataset and "
            "labels, and has nothing about where the images come from."
        )


def export_hub(run: str | Path, destination: str | Path) -> HubExport:
    """Write a folder that dxseg reads as a model and model hubs show with its card.

    The weights are those of the run, byte for byte. No file contains a case, a path or a computer.
    Nothing is uploaded.

    Args:
        run: A run that is trained and evaluated on its test images.
        destination: A new folder, or one of an earlier export; hidden files in it, such as those
            of git, stay.

    Raises:
        UsageError: The extra is not installed.
        DxsegError: The run is not finished or not evaluated, or the folder holds something else.
    """
    folder, target = Path(run) / "model", Path(destination)
    _check_destination(target)
    _, info = load_model_folder(folder)
    card = model_card(Path(run), info)
    notes = {name: info.training[name] for name in _TRAINING if name in info.training}
    public_info = info.model_copy(update={"training": notes})
    weights = folder / WEIGHTS_FILE
    # model.json goes last: without it, the folder is not a model.
    write_text_atomic(target / CARD_FILE, card)
    write_bytes_atomic(target / WEIGHTS_FILE, read_limited(weights, weights.stat().st_size))
    write_text_atomic(target / INFO_FILE, public_info.model_dump_json(indent=2) + "\n")
    names = [CARD_FILE, INFO_FILE, WEIGHTS_FILE]
    size = sum((target / name).stat().st_size for name in names)
    return HubExport(destination=target, files=names, size=size)


def _check_destination(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise DxsegError(f"{target}: is a file; expected a folder to write the model to")
    known = {CARD_FILE, INFO_FILE, WEIGHTS_FILE}
    found = [path.name for path in target.iterdir()] if target.is_dir() else []
    others = sorted(name for name in found if name not in known and not name.startswith("."))
    if others:
        raise DxsegError(
            f"{target}: holds {others[0]!r}, which is not part of a model; choose a new or empty "
            "folder"
        )
