"""Masks drawn or corrected in Label Studio, saved into the dataset of their cases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dxseg.data.exporters.brush_rle import decode_brush
from dxseg.data.importers.report import Progress
from dxseg.data.readers.images import image_size
from dxseg.data.readers.masks import Mask
from dxseg.data.table.annotations import find_case, save_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.io.json_io import read_json

_BRUSH = "brushlabels"
_MODEL = re.compile(r"[0-9a-f]{12}")


class LabelStudioImport(BaseModel):
    """The result of an import; the command line prints `notes`.

    Attributes:
        destination: Folder of the dataset.
        saved: Cases that got a mask.
        unchanged: Cases that already had the same mask.
        skipped: Cases or tasks that were left as they are, and why.
        notes: All of it as lines of text.
    """

    destination: Path
    saved: list[str] = []
    unchanged: list[str] = []
    skipped: list[tuple[str, str]] = []
    notes: list[str] = []

    def __str__(self) -> str:
        return "\n".join([*(f"- {note}" for note in self.notes), f"Dataset: {self.destination}"])


class _Value(BaseModel):
    rle: list[int] = []
    brushlabels: list[str] = []


class _Region(BaseModel):
    type: str = ""
    original_width: int = 0
    original_height: int = 0
    value: _Value = _Value()


class _Prediction(BaseModel):
    id: int
    model_version: str | None = None


class _Annotation(BaseModel):
    """An annotation. The annotator is not read: names are not stored."""

    was_cancelled: bool = False
    updated_at: str = ""
    parent_prediction: int | None = None
    prediction: _Prediction | dict[str, Any] | None = Field(None, union_mode="left_to_right")
    result: list[_Region] = []


class Task(BaseModel):
    """An image in Label Studio, with its annotations."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: str = "without a number"
    data: dict[str, Any]
    annotations: list[_Annotation] = Field(description="Absent in exports of other formats.")
    predictions: list[_Prediction | int] = Field([], description="Numbers alone in most exports.")


@dataclass(frozen=True)
class _Drawn:
    case_id: str
    row: Any
    mask: Mask
    model: str


def save_masks(
    tasks: Sequence[Task], dataset: Dataset, role: str, progress: Progress | None
) -> LabelStudioImport:
    """Save the brush masks of tasks into a dataset.

    The `case_id` in the data of a task is the case, as `dxseg export label-studio` writes it. The
    last of several annotations is used; skipped annotations are ignored. Errors of a single task
    are reported, and the others are imported.

    Args:
        tasks: The tasks of an export.
        dataset: The dataset; its `annotations.csv` records the masks.
        role: Role of the annotator; one of `dxseg.data.table.annotations.ROLES`.
        progress: Called with (done, total) after each task.
    """
    report = LabelStudioImport(destination=dataset.root)
    for done, task in enumerate(tasks, 1):
        name = str(task.data.get("case_id") or f"task {task.id}")
        try:
            drawn = _drawn(task, dataset)
            if _same(drawn, dataset):
                report.unchanged.append(name)
            else:
                old = str(drawn.row["mask"])
                save_mask(dataset.root, name, drawn.mask, role, previous=old, model=drawn.model)
                report.saved.append(name)
        except DxsegError as error:
            report.skipped.append((name, str(error)))
        if progress is not None:
            progress(done, len(tasks))
    report.notes.extend(_notes(report))
    return report


def read_tasks(path: Path) -> list[Task]:
    """Read an export of Label Studio.

    Args:
        path: JSON file (not JSON-MIN).

    Raises:
        DxsegError: It cannot be read or is something else.
    """
    content = read_json(path, "export it again, as JSON")
    if not isinstance(content, list):
        raise DxsegError(f"{path}: expected a list of tasks; export it as JSON")
    try:
        return [Task.model_validate(task) for task in content]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DxsegError(
            f"{path}: {place}: {first['msg']}; expected tasks with annotations, as Label Studio "
            "exports them as JSON (not JSON-MIN)"
        ) from error


def _drawn(task: Task, data: Dataset) -> _Drawn:
    """Decode the mask of a task.

    Raises:
        DxsegError: It has no mask, or one that cannot be imported.
    """
    row = find_case(data, str(task.data.get("case_id", "")))
    given = [one for one in task.annotations if not one.was_cancelled]
    if not given:
        raise DxsegError("not annotated")
    last = max(given, key=lambda one: one.updated_at)
    mask = np.zeros(image_size(data.image_path(row)), np.uint8)
    for number, drawn in _layers(last, data.spec.mask_classes, mask.shape):
        if np.setdiff1d(mask[drawn], (0, number)).size:
            raise DxsegError("classes overlap; expected each pixel in one")
        mask[drawn] = number
    if not mask.any():
        raise DxsegError(
            "nothing is drawn; lesion-free images are marked by their label, not by an empty mask"
        )
    return _Drawn(row["case_id"], row, mask, _corrected_model(last, task))


def _corrected_model(annotation: _Annotation, task: Task) -> str:
    """Find the model whose prediction was corrected; "" if the export does not have it."""
    for one in (annotation.prediction, *task.predictions):
        if isinstance(one, _Prediction) and one.id == annotation.parent_prediction:
            version = one.model_version or ""
            return version if _MODEL.fullmatch(version) else ""
    return ""


def _layers(
    annotation: _Annotation, classes: list[str], size: tuple[int, ...]
) -> Iterator[tuple[int, Any]]:
    """Yield the class number and the pixels of each region."""
    for region in annotation.result:
        if region.type != _BRUSH:
            if region.type in ("choices", "textarea", "rating"):
                continue  # about the image; no mask
            raise DxsegError(f"a region of type {region.type[:40]!r}; expected brush masks only")
        names = region.value.brushlabels
        if len(names) != 1 or names[0] not in classes:
            raise DxsegError(f"a region of {names[:5]}; expected one of {', '.join(classes)}")
        claimed = region.original_height, region.original_width
        if claimed != size:
            raise DxsegError(
                f"a region of {claimed} pixels (height, width), but its image has {size}"
            )
        yield classes.index(names[0]) + 1, decode_brush(region.value.rle, *claimed)


def _same(drawn: _Drawn, data: Dataset) -> bool:
    kept = data.read_mask(drawn.row)
    return kept is not None and np.array_equal(kept, drawn.mask)


def _notes(report: LabelStudioImport) -> list[str]:
    notes = [f"{len(report.saved)} masks saved, {len(report.unchanged)} already in the dataset"]
    if report.skipped:
        notes.append(f"not imported: {len(report.skipped)}")
        notes.extend(f"  {name}: {reason}" for name, reason in report.skipped)
    return notes
