"""Importing BUSI, the public breast ultrasound set (Al-Dhabyani et al., 2020)."""

from __future__ import annotations

from pathlib import Path

from dxseg.data.importers.folder import find_beside
from dxseg.data.importers.image_dataset import write_dataset
from dxseg.data.importers.report import ImportReport, Progress
from dxseg.errors import DxsegError

_LABELS = ("benign", "malignant", "normal")
_ARCHIVE_FOLDER = "Dataset_BUSI_with_GT"
_PROVENANCE = (
    "BUSI: Al-Dhabyani W, Gomaa M, Khaled H, Fahmy A. Dataset of breast ultrasound images. "
    "Data in Brief 28:104863 (2020), doi 10.1016/j.dib.2019.104863"
)


def import_busi(
    source: str | Path,
    destination: str | Path,
    *,
    name: str = "BUSI",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import BUSI breast ultrasound as published: `class/NAME.png` beside `class/NAME_mask.png`.

    Masks of 17 images are in several files (`NAME_mask_1.png`, ...); they are merged and the report
    lists the images. BUSI has no patient identifiers and no pixel spacing: splits go by groups of
    near-duplicates, and distances are in pixels.

    Args:
        source: Folder with `benign/`, `malignant/`, `normal/`, or the one above it.
        destination: Folder of the new dataset.
        name: Dataset name.
        overwrite: Replace the dataset in `destination` if it has the same name.
        progress: Called with (done, total) after each image.

    Raises:
        DxsegError: A class folder is missing, or the destination has other files.
    """
    folder = Path(source).resolve()
    if (folder / _ARCHIVE_FOLDER).is_dir():
        folder = folder / _ARCHIVE_FOLDER
    missing = [label for label in _LABELS if not (folder / label).is_dir()]
    if missing:
        raise DxsegError(
            f"{folder}: folders {', '.join(missing)} are missing; expected BUSI's benign, "
            "malignant and normal; unpack the whole archive"
        )
    skipped: list[tuple[str, str]] = []
    fields = {
        "name": name,
        "modality": "ultrasound",
        "labels": list(_LABELS),
        "lesion_free": ["normal"],
        "provenance": _PROVENANCE,
        "licence": "no explicit licence at the source; research use",
    }
    return write_dataset(
        find_beside(folder, _LABELS, "_mask", skipped),
        folder,
        Path(destination),
        fields,
        skipped=skipped,
        overwrite=overwrite,
        progress=progress,
    )
