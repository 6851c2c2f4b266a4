"""The output folder of `dxseg predict`: its files, which earlier ones are kept, and a summary."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dxseg.data.readers.dicom.objects import is_dicom
from dxseg.data.readers.images import is_image_name
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files.inputs import PredictionInput
from dxseg.inference.files.table import LABEL_PROMPT, VOLUME, Row

TABLE_FILE = "predictions.csv"
MASKS, OVERLAYS, SEGMENTATIONS = FOLDERS = "masks", "overlays", "segmentations"


@dataclass
class PredictSummary:
    """Counts of a call of `predict_files` or `predict_archive`.

    Attributes:
        done: Images and volumes predicted, with all files that were requested.
        skipped: Those that the table already held.
        failed: Name and reason of each one without a mask, or without the DICOM SEG of its mask.
        turned: Number of images with an EXIF orientation; their masks are of the picture as shown.
        of_unknown_spacing: Images without a spacing, where the network was trained at one.
        reduced: Images and volumes that at the network's spacing are larger than its input, and
            were reduced further.
        label_prompts: Number of all of them with a label prompt.
        passed_over: Files that are no images, and are not predicted.
        of_no_sequence: Volumes that are none of the model's sequences, and are not predicted.
        unmatched_labels: Rows of the table of labels that match none of them.
        table: The table, or the folder of tables, with a row for each.
    """

    done: int = 0
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    turned: int = 0
    of_unknown_spacing: list[str] = field(default_factory=list)
    reduced: list[str] = field(default_factory=list)
    label_prompts: int = 0
    passed_over: list[str] = field(default_factory=list)
    of_no_sequence: list[str] = field(default_factory=list)
    unmatched_labels: list[str] = field(default_factory=list)
    table: Path | None = field(default=None, compare=False)

    def __str__(self) -> str:
        lines = [
            f"{self.done} predicted, {self.skipped} already done, {len(self.failed)} failed. "
            f"Table: {self.table}"
        ]
        if self.turned:
            lines.append(
                f"{self.turned} images have an EXIF orientation: their masks fit them as viewers "
                "show them, not as stored."
            )
        listed = {
            "Of unknown spacing, taken to be the network's": self.of_unknown_spacing,
            "Larger than the network's input at its spacing, so reduced further": self.reduced,
            "Not images": self.passed_over,
            "Of no sequence": self.of_no_sequence,
        }
        for reason, files in listed.items():
            if files:
                more = ", ..." if len(files) > 10 else ""
                lines.append(f"{reason}: {len(files)} ({', '.join(files[:10])}{more}).")
        if self.label_prompts or self.unmatched_labels:
            rows = ", ".join(self.unmatched_labels[:10])
            more = ", ..." if len(self.unmatched_labels) > 10 else ""
            unmatched = f"; {len(self.unmatched_labels)} rows fit no file: {rows}{more}"
            lines.append(f"Label prompts: {self.label_prompts}{unmatched if rows else ''}.")
        return "\n".join(lines)

    def pass_over(self, files: Sequence[Path]) -> None:
        """Count and name files of types that are not read; those named as images have failed.

        Args:
            files: The files.
        """
        for path in files:
            if is_image_name(path):
                reason = f"not predicted: {path.suffix} is not read; convert it to PNG or NIfTI"
                self.failed.append((str(path), reason))
            elif is_dicom(path):
                reason = "not predicted: DICOM whose name does not end in .dcm; rename it"
                self.failed.append((str(path), reason))
            else:
                self.passed_over.append(path.name)


class OutputFolder:
    """Paths of results; none of them leads outside the folder."""

    def __init__(self, root: str | Path) -> None:
        """Resolve the folder; nothing is created yet."""
        self.root = Path(root).resolve()

    @property
    def table(self) -> Path:
        """The table of results."""
        return self.root / TABLE_FILE

    def path(self, kind: str, item: PredictionInput) -> Path:
        """The file of a result.

        Args:
            kind: One of `FOLDERS`.
            item: The image or volume; volumes have no overlay file, see `slice_folder`.

        Raises:
            DxsegError: A link leads outside the folder.
        """
        suffix = {MASKS: item.mask_suffix, OVERLAYS: ".png", SEGMENTATIONS: ".dcm"}[kind]
        path = self.root / kind / f"{item.stem}{suffix}"
        if not path.parent.resolve().is_relative_to(self.root):
            raise DxsegError(f"{path.parent}: a link leads outside {self.root}; remove it")
        return path

    def slice_folder(self, item: PredictionInput) -> Path:
        """The folder of a volume's slice overlays.

        Raises:
            DxsegError: A link leads outside the output folder.
        """
        # No other input can have a file in it: where a file lies, there is no folder. Beside the
        # slices of a series, though, images may lie.
        name = f"{item.name}.nii.gz" if item.name == item.stem else item.name
        folder = self.root / OVERLAYS / name
        if not folder.resolve().is_relative_to(self.root):
            raise DxsegError(f"{folder}: a link leads outside {self.root}; remove it")
        return folder

    def prepare(self, overwrite: bool) -> None:
        """Create the folder, or check that it is an output folder of `dxseg predict`.

        Args:
            overwrite: Whether to remove the table of an earlier call.

        Raises:
            UsageError: It has results but no table.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        if overwrite:
            self.table.unlink(missing_ok=True)
            return
        found = [kind for kind in FOLDERS if (self.root / kind).exists()]
        if found and not self.table.exists():
            raise UsageError(
                f"{self.root}: has {' and '.join(found)} but no {TABLE_FILE}, so they are not of "
                "`dxseg predict`; choose another output folder, or overwrite"
            )

    def remove(self, item: PredictionInput) -> None:
        """Remove results of an earlier call, so that none stays beside a row with status failed."""
        for kind in FOLDERS:
            with suppress(DxsegError):  # what lies outside is not ours
                path = self.path(kind, item)
                if path.is_file():
                    path.unlink()
        if item.is_volume:
            with suppress(DxsegError):
                # A link in its place stays, and ends nothing.
                shutil.rmtree(self.slice_folder(item), ignore_errors=True)


@dataclass
class ResumeState:
    """Decides which rows of an earlier call are still valid.

    Attributes:
        folder: The output folder.
        items: The images and volumes, by `PredictionInput.name`.
        model: Name of the model and its settings in the table.
        labels: Label prompts by `PredictionInput.name`.
        overlays: Whether images need an overlay.
        slice_overlays: Whether volumes with a mask need overlays of slices.
        dicom_seg: Whether DICOM inputs need a SEG.
        done: Names of the inputs with a valid row; filled by `is_still_valid`.
    """

    folder: OutputFolder
    items: Mapping[str, PredictionInput]
    model: str
    labels: Mapping[str, str]
    overlays: bool
    slice_overlays: bool
    dicom_seg: bool
    done: set[str] = field(default_factory=set)

    def is_still_valid(self, row: Row) -> bool:
        """Whether a row is kept: rows of other inputs are, and those that need not be recomputed.

        Args:
            row: A row of the earlier table.

        Raises:
            UsageError: It is of another file with the same name.
        """
        item = self.items.get(row["name"])
        if item is None:
            return True
        if row["status"] != "ok" or item.name in self.done:
            return False
        if row["source"] != item.shown_source:
            raise UsageError(
                f"{self.folder.root}: holds results of {row['source']} under the name "
                f"{item.name}, which is now {item.source}; choose another output folder, or "
                "overwrite"
            )
        label = self.labels.get(item.name, "")
        if (row["model"], row.get(LABEL_PROMPT, "")) != (self.model, label):
            return False
        if not self._has_results(item, row):
            return False
        self.done.add(item.name)
        return True

    def _has_results(self, item: PredictionInput, row: Row) -> bool:
        """Whether the files of a row exist, and its input has not changed since."""
        kinds = [MASKS]
        if self.overlays and not item.is_volume:
            kinds.append(OVERLAYS)
        if self.dicom_seg and item.is_dicom:
            kinds.append(SEGMENTATIONS)
        if not all(_exists_nonempty(self.folder.path(kind, item)) for kind in kinds):
            return False
        sliced = self.slice_overlays and item.is_volume and _has_mask(row)
        if sliced and not self.folder.slice_folder(item).is_dir():
            return False
        written = self.folder.path(MASKS, item).stat().st_mtime
        return all(last_change(path) <= written for path in item.files)


def last_change(path: Path) -> float:
    """When a file became what it is, seconds; 0 if it is absent: reading it says so.

    Files that are moved or copied here may keep an old time of modification, but not of the change.
    """
    try:
        state = path.stat()
    except OSError:
        return 0.0
    return max(state.st_mtime, state.st_ctime)


def _has_mask(row: Row) -> bool:
    """Whether the row of a volume has a volume above 0, of any class."""
    return any(float(value) > 0 for name, value in row.items() if name.startswith(VOLUME))


def _exists_nonempty(path: Path) -> bool:
    """Whether a file exists; a power cut may have left an empty one."""
    return path.is_file() and path.stat().st_size > 0
