"""Masks as COCO: one JSON file with run lengths, one annotation per lesion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from dxseg.data.exporters.coco_rle import encode_runs, pack_runs
from dxseg.data.readers.images import image_size
from dxseg.data.readers.masks import Mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.io.atomic import write_json_atomic

Progress = Callable[[int, int], None]

_EIGHT_NEIGHBOURS = np.ones((3, 3))


@dataclass(frozen=True)
class CocoImage:
    """An image whose mask is known.

    Attributes:
        file_name: Its name in the file.
        load_mask: Reads its mask (H, W), 0 is background.
        score: Confidence of a predicted mask, 0 to 1.
    """

    file_name: str
    load_mask: Callable[[], Mask]
    score: float | None = None


class CocoExport(BaseModel):
    """The result of an export.

    Attributes:
        destination: The file.
        images: Images in it.
        annotations: Annotations in it.
        unknown: Images left out because their mask is not known.
    """

    destination: Path
    images: int
    annotations: int
    unknown: int

    def __str__(self) -> str:
        left_out = f"; {self.unknown} images left out: their mask is not known"
        return (
            f"{self.images} images, {self.annotations} lesions"
            f"{left_out if self.unknown else ''}\nFile: {self.destination}"
        )


def write_coco(
    images: Sequence[CocoImage],
    mask_classes: Sequence[str],
    destination: Path,
    *,
    unknown: int,
    progress: Progress | None = None,
) -> CocoExport:
    """Write masks as one COCO file; lesions are connected regions (8 neighbors) of a class.

    Images are as viewers show them: an EXIF orientation is applied. An image without an annotation
    has no lesion.

    Args:
        images: The images.
        mask_classes: Names of the mask values 1, 2, ...
        destination: The JSON file.
        unknown: Number of images left out.
        progress: Called with (done, total) after each image.

    Raises:
        DxsegError: The file exists, there is no image, or a mask cannot be read.
    """
    if destination.exists():
        raise DxsegError(f"{destination}: exists; expected a new file; choose another name")
    if not images:
        raise DxsegError(f"{destination}: no image has a known mask; expected at least one")
    content: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": n, "name": name} for n, name in enumerate(mask_classes, 1)],
    }
    for number, image in enumerate(images, 1):
        mask = image.load_mask()
        height, width = mask.shape
        entry = {"id": number, "file_name": image.file_name, "height": height, "width": width}
        content["images"].append(entry)
        for annotation in _annotations(mask, image.score):
            identity = {"id": len(content["annotations"]) + 1, "image_id": number}
            content["annotations"].append({**identity, **annotation})
        if progress is not None:
            progress(number, len(images))
    destination.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(destination, content)
    return CocoExport(
        destination=destination,
        images=len(images),
        annotations=len(content["annotations"]),
        unknown=unknown,
    )


def dataset_images(dataset: Dataset) -> list[CocoImage]:
    """The images of a dataset whose masks are known, lesion-free ones too.

    Args:
        dataset: The dataset.
    """
    known = dataset.cases[dataset.has_mask]

    def loader(row: Any) -> Callable[[], Mask]:
        def load() -> Mask:
            mask = dataset.read_mask(row)
            return np.zeros(image_size(dataset.image_path(row)), np.uint8) if mask is None else mask

        return load

    return [CocoImage(str(row.image), loader(row)) for row in known.itertuples()]


def _annotations(mask: Mask, score: float | None) -> Iterator[dict[str, Any]]:
    for number in np.unique(mask[mask > 0]).tolist():
        for inside in _components(mask == number):
            rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            annotation: dict[str, Any] = {
                "category_id": number,
                "segmentation": {
                    "size": list(mask.shape),
                    "counts": pack_runs(encode_runs(inside)),
                },
                "area": int(inside.sum()),
                "bbox": [
                    int(columns[0]),
                    int(rows[0]),
                    int(columns[-1] - columns[0]) + 1,
                    int(rows[-1] - rows[0]) + 1,
                ],
                "iscrowd": 0,
            }
            yield annotation if score is None else {**annotation, "score": score}


def _components(inside: NDArray[np.bool_]) -> Iterable[NDArray[np.bool_]]:
    from scipy.ndimage import label

    numbered, count = label(inside, _EIGHT_NEIGHBOURS)
    return (numbered == number for number in range(1, count + 1))
