"""`dxseg export label-studio`: write the cases without a mask as tasks for Label Studio."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from urllib.parse import quote

from pydantic import BaseModel

from dxseg.data.readers.images import read_image
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.inference.files.overlay import display_rgb
from dxseg.inference.files.png import encode_png
from dxseg.io.atomic import write_bytes_atomic, write_json_atomic, write_text_atomic

TASKS_FILE = "tasks.json"
CONFIG_FILE = "labeling_config.xml"
_IMAGES = "images"
_LOCAL_FILES = "/data/local-files/?d="
"""URL under which Label Studio serves files of its own disk."""


class LabelStudioTasks(BaseModel):
    """The exported folder.

    Attributes:
        destination: The folder.
        tasks: Number of cases without a mask.
    """

    destination: Path
    tasks: int

    def __str__(self) -> str:
        return f"Written: {self.destination}: {self.tasks} tasks"


def export_label_studio(
    dataset: str | Path,
    destination: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> LabelStudioTasks:
    """Write images, tasks and the labelling interface for a project in Label Studio.

    Images are written as 8-bit PNG, which browsers show, at their own size, and are named by
    number. A task contains its case, so that predicted and corrected masks can be assigned to it.

    Args:
        dataset: The dataset's folder.
        destination: A new or empty folder, the one that Label Studio serves files from.
        progress: Called with (done, total) after each image.

    Raises:
        DxsegError: The folder is not empty, no case lacks a mask, or an image cannot be read.
    """
    data, target = Dataset.load(dataset), Path(destination)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DxsegError(f"{target}: is not empty; choose a new or empty folder")
    unlabeled = data.cases[~data.has_mask & data.cases["split"].ne("dropped")]
    if unlabeled.empty:
        raise DxsegError(f"{data.root}: every case has a mask, or a label that means none")
    tasks = []
    for number, row in enumerate(unlabeled.itertuples(), 1):
        name = f"{_IMAGES}/{number:05}.png"
        shown = display_rgb(read_image(data.image_path(row)))
        write_bytes_atomic(target / name, encode_png(shown))
        task = {"image": _LOCAL_FILES + quote(name), "case_id": row.case_id, "label": row.label}
        tasks.append({"data": task})
        if progress is not None:
            progress(number, len(unlabeled))
    write_text_atomic(target / CONFIG_FILE, labeling_config(data.spec.mask_classes))
    write_json_atomic(target / TASKS_FILE, tasks)
    return LabelStudioTasks(destination=target, tasks=len(tasks))


def labeling_config(mask_classes: list[str]) -> str:
    """Write a labelling interface with a brush for each class.

    Args:
        mask_classes: Their names.
    """
    labels = "\n".join(f'    <Label value="{escape(name)}"/>' for name in mask_classes)
    return f"""<View>
  <Header value="$label"/>
  <Image name="image" value="$image" zoom="true" zoomControl="true" contrastControl="true"/>
  <BrushLabels name="mask" toName="image">
{labels}
  </BrushLabels>
</View>
"""
