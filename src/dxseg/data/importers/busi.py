"""Layout of BUSI, the public breast ultrasound set (Al-Dhabyani et al., 2020)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dxseg.data.importers.folder import FoundFolder, walk_images
from dxseg.data.importers.image_dataset import FoundCase
from dxseg.data.importers.mask_owner import MaskNaming
from dxseg.data.importers.mask_search import find_masks
from dxseg.data.importers.report import LeftOut
from dxseg.errors import DxsegError

LABELS = ("benign", "malignant", "normal")
_ARCHIVE_FOLDER = "Dataset_BUSI_with_GT"

FIELDS: dict[str, Any] = {
    "modality": "ultrasound",
    "labels": list(LABELS),
    "lesion_free": ["normal"],
    "provenance": "BUSI: Al-Dhabyani W, Gomaa M, Khaled H, Fahmy A. Dataset of breast ultrasound "
    "images. Data in Brief 28:104863 (2020), doi 10.1016/j.dib.2019.104863",
    "licence": "no explicit licence at the source; research use",
}
"""Fields of `DatasetSpec`, without the name."""


def find_busi(source: str | Path, left_out: LeftOut) -> FoundFolder:
    """Find the images of BUSI with their masks, `NAME_mask.png` and `NAME_mask_1.png`.

    Args:
        source: The folder that has one folder per class, or the one above it in the archive.
        left_out: List to which files left out are added.

    Raises:
        DxsegError: A class folder is missing.
    """
    root = find_class_folders(source)
    files = [path for label in LABELS for path in walk_images(root / label, left_out)]
    pairing = find_masks(files, root, MaskNaming("_mask"))
    for path, reason in pairing.left_out.items():
        left_out.mask(path, reason)
    cases = [
        FoundCase(path, path.relative_to(root).parts[0], [mask.path for mask in masks])
        for path, masks in pairing.masks.items()
    ]
    return FoundFolder(root, list(LABELS), cases)


def find_class_folders(source: str | Path) -> Path:
    """Find the folder that has one folder per class.

    Args:
        source: That folder, or the one above it in the archive.

    Raises:
        DxsegError: A class folder is missing.
    """
    folder = Path(source).resolve()
    if (folder / _ARCHIVE_FOLDER).is_dir():
        folder = folder / _ARCHIVE_FOLDER
    missing = [label for label in LABELS if not (folder / label).is_dir()]
    if missing:
        raise DxsegError(
            f"{folder}: folders {', '.join(missing)} are missing; expected BUSI's benign, "
            "malignant and normal; unpack the whole archive"
        )
    return folder
