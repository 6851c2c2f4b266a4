"""Writing a dataset of a list of found images; every importer of images ends here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.importers.channels import infer_channels, stack_channels
from dxseg.data.importers.destination import (
    UNFINISHED,
    Folders,
    name_in_root,
    open_destination,
)
from dxseg.data.importers.mask_orientation import MaskOrientations
from dxseg.data.importers.mask_values import MaskRule
from dxseg.data.importers.names import plain_name, unique_names
from dxseg.data.importers.report import (
    ImportReport,
    LeftOut,
    Progress,
    describe_left_out,
    failures,
)
from dxseg.data.readers.images import image_size
from dxseg.data.readers.masks import Mask, read_mask, read_masks_merged, write_mask
from dxseg.data.table.cases import split_labels
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.spec import DatasetSpec, make_spec
from dxseg.errors import DxsegError

_LACKING = "another mask of its image is left out: the mask of the image is unknown"


@dataclass(slots=True)
class FoundCase:
    """An image that an importer has found, before it is read.

    Attributes:
        image: The file.
        label: Value of the label column.
        masks: Its mask files; several are merged.
        values: Values of other columns of the table.
        more_channels: Files with further channels of the image; all are stacked into one file.
        structures: What a mask shows, where an image has masks of several structures.
        lacks_masks: Whether a mask was left out: the others then are not the whole mask.
    """

    image: Path
    label: str = ""
    masks: list[Path] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    more_channels: list[Path] = field(default_factory=list)
    structures: dict[Path, str] = field(default_factory=dict)
    lacks_masks: bool = False


def write_dataset(
    found: Sequence[FoundCase],
    root: Path,
    destination: str | Path,
    fields: Mapping[str, Any],
    *,
    skipped: list[tuple[str, str]],
    overwrite: bool,
    progress: Progress | None,
    notes: Sequence[str] = (),
    rule: MaskRule | None = None,
) -> ImportReport:
    """Read the header of every image and every mask, then write the dataset.

    Images stay where they are; `dataset.yaml` lists `root`, unless it is the dataset's folder.
    Several masks of an image are merged and written to the folder masks; channels in several files
    are stacked in the folder images. `dataset.yaml` comes last: an interrupted import
    leaves no dataset and can be started again.

    Args:
        found: The images.
        root: The folder that contains all images and masks.
        destination: Folder of the dataset.
        fields: Fields of `DatasetSpec`, without channels and roots, which are found here.
        skipped: Files left out so far; the report adds to it.
        overwrite: Replace the dataset in `destination` if it has the same name.
        progress: Called with (done, total) after each image.
        notes: Lines of the report on how the images were found.
        rule: Which class a value of a mask is; default: the values are class numbers. Masks of
            another rule are written to the folder masks.

    Raises:
        DxsegError: The destination has other files, or no image is left.
    """
    root, destination = root.resolve(), Path(destination).resolve()
    _refuse_shadowed(found, root, destination)
    roots = [] if root == destination else [str(root)]
    spec = make_spec({**fields, "roots": roots}, str(root))
    open_destination(destination, spec.name, overwrite)
    left_out = skipped if isinstance(skipped, LeftOut) else LeftOut(skipped)
    orientations = MaskOrientations((case.image, case.masks) for case in found)
    rule = rule or MaskRule(spec.mask_classes)
    work = _Import(root, destination, spec, left_out, orientations, rule)
    for done, (case, case_id) in enumerate(zip(found, _case_ids(found, root), strict=True), 1):
        work.add(case, case_id)
        if progress is not None:
            progress(done, len(found))
    if not work.rows:
        raise DxsegError(f"{root}: no readable image was found{_first(left_out)}")
    channels, color_note = infer_channels(work.images)
    spec = make_spec({**spec.model_dump(), "channels": channels}, str(root))
    dataset = Dataset(destination, spec, pd.DataFrame(work.rows))
    dataset.save()
    (destination / UNFINISHED).unlink(missing_ok=True)
    report = ImportReport(
        destination=destination,
        images=len(dataset),
        masks=int(dataset.cases["mask"].ne("").sum()),
        labels=dict(sorted(Counter(dataset.cases["label"].tolist()).items())),
        channels=channels,
        merged=work.merged,
        repaired=work.repaired,
        skipped=left_out,
    )
    report.failed.extend(failures(left_out, report.masks))
    report.notes.extend(_notes(report, color_note, work, notes))
    report.notes.extend(orientations.notes)
    return report


class _Import:
    """The rows so far, and what the report lists."""

    def __init__(
        self,
        root: Path,
        destination: Path,
        spec: DatasetSpec,
        left_out: LeftOut,
        orientations: MaskOrientations,
        rule: MaskRule,
    ) -> None:
        self.root, self.destination, self.spec, self.left_out = root, destination, spec, left_out
        self.orientations, self.rule = orientations, rule
        self.written: set[Path] = set()
        self.rows: list[dict[str, Any]] = []
        self.images: list[Path] = []
        self.merged: list[str] = []
        self.overlapping: list[str] = []
        self.folders: Folders = {}
        self.repaired: list[tuple[str, str]] = []
        self.empty: list[str] = []

    def add(self, case: FoundCase, case_id: str) -> None:
        try:
            name = name_in_root(case.image, self.root, self.folders)
            size = image_size(case.image)
            if case.more_channels:
                name = self._stack(case, case_id)
        except DxsegError as error:
            self.left_out.image(case.image, _reason(error, case.image))
            self.left_out.masks += len(case.masks)
            return
        fitting = {mask: self._fit(mask, size, case, case_id) for mask in case.masks}
        masks = [mask for mask in fitting.values() if mask is not None]
        if case.lacks_masks or len(masks) < len(fitting):
            # The rest as the whole mask would call the lesions that it lacks background.
            for path in (path for path, mask in fitting.items() if mask is not None):
                self.left_out.mask(path, _LACKING)
            masks = []
        stored = ""
        if len(masks) == 1:
            stored = self._name(masks[0])
        elif masks:
            stored = self._merge(masks, case_id)
        self.rows.append(
            {
                **case.values,
                "case_id": case_id,
                "image": name,
                "mask": stored,
                "label": case.label,
            }
        )
        self.images.append(self.destination / name if case.more_channels else case.image)

    def _fit(self, path: Path, size: tuple[int, int], case: FoundCase, case_id: str) -> Path | None:
        """Check a mask; return its file, or one that is written by the rule or turned."""
        try:
            self._name(path)
            reading = self.rule.read(path, case.structures.get(path, ""))
            mask = self.orientations.as_shown(reading.mask, path, case.image, size)
        except DxsegError as error:
            self.left_out.mask(path, _reason(error, path))
            return None
        filled = bool(reading.mask.any())
        labels = split_labels(case.label, self.spec)
        lesion_free = bool(labels) and set(labels) <= set(self.spec.lesion_free)
        reason = ""
        if mask.shape != size:
            reason = f"{mask.shape} pixels (height, width), but its image has {size}"
        elif filled and lesion_free:
            reason = f"not empty, but the label {case.label!r} means lesion-free"
        if reason:
            self.left_out.mask(path, f"mask is {reason}; the image is kept without it")
            return None
        if reading.repair:
            self.repaired.append((str(path), reading.repair))
        if not filled and not lesion_free:
            self.empty.append(str(path))
        if mask is reading.mask and self.rule.is_plain:
            return path
        return self._write(mask, f"masks/{case_id}_{'turned' if self.rule.is_plain else 'classes'}")

    def _write(self, mask: Mask, stem: str) -> Path:
        """Write a mask that differs from its file."""
        name, number = self._unused(stem, ".png"), 2
        while (path := self.destination / name) in self.written:
            name, number = self._unused(f"{stem}_{number}", ".png"), number + 1
        write_mask(path, mask, len(self.spec.mask_classes))
        self.written.add(path)
        return path

    def _name(self, path: Path) -> str:
        """Name of a mask: a file of the root, or one that an importer wrote into the dataset."""
        own = str(path).startswith(f"{self.destination}{os.sep}")
        return name_in_root(path, self.destination if own else self.root, self.folders)

    def _merge(self, masks: list[Path], case_id: str) -> str:
        classes = len(self.spec.mask_classes)
        mask = read_masks_merged(masks, classes)
        if any(((own := read_mask(path, classes)) != mask)[own > 0].any() for path in masks):
            self.overlapping.append(case_id)
        name = self._unused(f"masks/{case_id}_merged", ".png")
        write_mask(self.destination / name, mask, classes, merged_count=len(masks))
        self.merged.append(case_id)
        return name

    def _stack(self, case: FoundCase, case_id: str) -> str:
        for path in case.more_channels:
            name_in_root(path, self.root)
        name = self._unused(f"images/{case_id}", ".tif")
        stack_channels([case.image, *case.more_channels], self.destination / name)
        return name

    def _unused(self, stem: str, suffix: str) -> str:
        """Extend a name until no file of the root has it: the dataset's folder is read first."""
        while (self.root / f"{stem}{suffix}").exists() and self.root != self.destination:
            stem = f"{stem}_"
        return f"{stem}{suffix}"


def _refuse_shadowed(found: Sequence[FoundCase], root: Path, destination: Path) -> None:
    """Refuse files whose name is taken in the dataset's folder, which is searched first."""
    if root == destination or not destination.is_dir():
        return
    there = {path.name for path in destination.iterdir()}
    # Text, as thousands of paths take long to compare.
    above, own = f"{root}{os.sep}", f"{destination}{os.sep}"
    for path in (str(path) for case in found for path in (case.image, *case.masks)):
        name = path.removeprefix(above)
        if name == path or path.startswith(own) or name.partition(os.sep)[0] not in there:
            continue
        if (destination / name).exists():
            raise DxsegError(
                f"{destination / name}: is there already, such as from an earlier import, and "
                f"would be read instead of {path}; choose a new destination, or remove it"
            )


def _case_ids(found: Sequence[FoundCase], root: Path) -> list[str]:
    """Use given ids, else file names, with their folders where names occur twice."""
    stems = Counter(case.image.stem for case in found)
    # Given ids are checked by the validation of the table; those made here must pass it.
    given = [str(case.values.get("case_id", "")) for case in found]
    names = []
    for case, own in zip(found, given, strict=True):
        name = case.image.stem
        if stems[name] > 1 and case.image.is_relative_to(root):
            name = "_".join(case.image.relative_to(root).with_suffix("").parts)
        if not own:
            names.append(plain_name(name))
    made = iter(unique_names(names, taken=given))
    return [own or next(made) for own in given]


def _reason(error: DxsegError, path: Path) -> str:
    # Reports have the file beside the reason.
    return str(error).removeprefix(f"{path}: ")


def _first(skipped: Iterable[tuple[str, str]]) -> str:
    return "".join(f"; first reason: {reason}" for _, reason in list(skipped)[:1])


def _notes(report: ImportReport, color_note: str, work: _Import, found: Sequence[str]) -> list[str]:
    counts = ", ".join(f"{count} {label or 'unlabeled'}" for label, count in report.labels.items())
    notes = [
        f"{report.images} images ({counts}), {report.masks} with a mask file",
        *found,
        color_note,
    ]
    if report.merged:
        notes.append(f"several masks merged for {_few(report.merged)}")
    if work.overlapping:
        notes.append(
            f"masks of several classes overlap in {_few(work.overlapping)}; the later class is kept"
        )
    notes.extend(describe_left_out(report.repaired, "masks repaired"))
    if work.empty:
        title = "masks that are empty although no label means lesion-free"
        notes.extend(describe_left_out([(file, "empty") for file in work.empty], title))
    return [*notes, *describe_left_out(report.skipped, "files skipped")]


def _few(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
