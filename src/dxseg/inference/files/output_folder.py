"""The output folder of `dxseg predict`: which files a result has, and which of them still hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files.inputs import PredictionInput
from dxseg.inference.files.table_schema import KNOWN, model_name
from dxseg.inference.files.writers import Row
from dxseg.inference.model_folder import ModelInfo

TABLE_FILE = "predictions.csv"
MASKS, OVERLAYS, SEGMENTATIONS = FOLDERS = "masks", "overlays", "segmentations"


def result_files(root: Path, item: PredictionInput, overlays: bool = True) -> list[Path]:
    """What a result consists of, the mask first.

    Args:
        root: The output folder.
        item: The image or volume.
        overlays: Whether images get an overlay.
    """
    if item.is_volume:
        return [root / MASKS / f"{item.stem}.nii.gz"]
    kinds = (MASKS, OVERLAYS) if overlays else (MASKS,)
    return [root / kind / f"{item.stem}.png" for kind in kinds]


def seg_file(root: Path, item: PredictionInput) -> Path:
    """The DICOM SEG of a result, where one is wanted.

    Args:
        root: The output folder.
        item: What is DICOM.
    """
    return root / SEGMENTATIONS / f"{item.stem}.dcm"


def ensure_inside(root: Path, path: Path) -> Path:
    """Give the path back, unless a link in the output folder leads the writing elsewhere.

    Args:
        root: The output folder, resolved.
        path: A file in it.

    Raises:
        DxsegError: It lies outside.
    """
    if not path.parent.resolve().is_relative_to(root):
        raise DxsegError(f"{path.parent}: a link leads outside {root}; remove it")
    return path


def remove_results(root: Path, item: PredictionInput) -> None:
    """Leave no result of an earlier call beside a row that says failed.

    Args:
        root: The output folder, resolved.
        item: What failed.
    """
    for path in (*result_files(root, item), seg_file(root, item)):
        if path.parent.resolve().is_relative_to(root) and path.is_file():
            path.unlink()


def prepare_output_dir(root: Path, overwrite: bool) -> None:
    """Make the output folder, or make sure that it is one.

    Args:
        root: The output folder.
        overwrite: Whether the table of an earlier call is removed.

    Raises:
        UsageError: It has results that no table speaks of.
    """
    root.mkdir(parents=True, exist_ok=True)
    table = root / TABLE_FILE
    if overwrite:
        table.unlink(missing_ok=True)
        return
    strangers = [kind for kind in FOLDERS if (root / kind).exists()]
    if strangers and not table.exists():
        raise UsageError(
            f"{root}: has {' and '.join(strangers)} but no {TABLE_FILE}, so they are not of "
            "`dxseg predict`; choose another output folder, or overwrite"
        )


def _written(path: Path) -> bool:
    """Whether a file is there; a power cut may have left an empty one."""
    return path.is_file() and path.stat().st_size > 0


class Finished:
    """Decides which rows of an earlier call still hold.

    Attributes:
        names: Of the items whose row holds; filled by `keep`.
    """

    def __init__(
        self,
        root: Path,
        items: list[PredictionInput],
        info: ModelInfo,
        known: Mapping[str, str],
        *,
        overlays: bool = True,
        dicom_seg: bool = False,
    ) -> None:
        """Remember what is asked now.

        Args:
            root: The output folder, resolved.
            items: The images and volumes.
            info: Of the model.
            known: Known labels by `PredictionInput.name`.
            overlays: Whether images need an overlay.
            dicom_seg: Whether what is DICOM has a SEG too.
        """
        self._dicom_seg = dicom_seg
        self.names: set[str] = set()
        self._overlays = overlays
        self._root, self._model, self._known = root, model_name(info), known
        self._items = {item.name: item for item in items}

    def keep(self, row: Row) -> bool:
        """Keep rows of other images and rows that still hold; drop what is predicted anew.

        Args:
            row: A row of the earlier table.

        Raises:
            UsageError: It is of another file under the same name.
        """
        item = self._items.get(row["name"])
        if item is None:
            return True
        if row["status"] != "ok" or item.name in self.names:
            return False
        if row["source"] != str(item.source):
            raise UsageError(
                f"{self._root}: holds results of {row['source']} under the name {item.name}, "
                f"which is now {item.source}; choose another output folder, or overwrite"
            )
        told = self._known.get(item.name, "")
        files = result_files(self._root, item, self._overlays)
        if self._dicom_seg and item.is_dicom:
            files.append(seg_file(self._root, item))
        if (row["model"], row.get(KNOWN, "")) != (self._model, told) or not all(
            _written(ensure_inside(self._root, path)) for path in files
        ):
            return False
        self.names.add(item.name)
        return True
