"""Where the slices of a volume of the dataset lie, as its import has recorded it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dxseg.data.importers.volume_slices import RECORDS, SliceRecord
from dxseg.data.readers.sliced_volume import SlicedVolume, slice_grid
from dxseg.data.readers.volume import check_affine
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, quote
from dxseg.server.slice_stacks import check_bytes


@dataclass(frozen=True)
class VolumeGrid:
    """The grid of a volume, and which slice of it each image is.

    Attributes:
        affine: (4, 4), from voxel indices to millimeters in RAS+.
        sliced: Turns slices into the grid; has no voxels.
        places: Number of the slice by the path of its image in the table.
    """

    affine: NDArray[np.float64]
    sliced: SlicedVolume
    places: dict[str, int]

    def place(self, row: Any) -> int:
        """Find the number of a slice in its volume.

        Args:
            row: Of the table.

        Raises:
            DxsegError: The import has not written its image.
        """
        if row.image not in self.places:
            raise DxsegError(
                f"case {quote(row.case_id)}: the import of its volume {quote(row.volume_id)} has "
                "not written its image; correct volume_id in the table, or drop the case"
            )
        return self.places[row.image]


def read_volume_grid(dataset: Dataset, volume_id: str, max_bytes: int) -> VolumeGrid:
    """Read the grid of a volume from the record of its import.

    Args:
        dataset: With the volume.
        volume_id: As in the table.
        max_bytes: Size of a label map at most.

    Raises:
        TooLargeError: It has more voxels.
        DxsegError: There is no such record, or it does not fit the dataset.
    """
    path = dataset.root / RECORDS / f"{volume_id}.json"
    remedy = (
        "import the source again with the same options into a new folder, and copy this file from "
        "there; importing over this dataset takes the masks that were saved out of its table"
    )
    slicing = dataset.spec.slicing
    try:
        if slicing is None or not path.resolve().is_relative_to(dataset.root.resolve()):
            raise FileNotFoundError
        record = SliceRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise DxsegError(
            f"{path}: no record of an import with the volume's affine and shape, which older "
            f"versions did not store; {remedy}"
        ) from None
    check_bytes(record.shape, 1, max_bytes, f"volume {quote(volume_id)}")
    affine = np.array(record.affine)
    check_affine(affine, path)
    positions = None if record.positions is None else np.array(record.positions)
    sliced = slice_grid(affine, record.shape, slicing, positions)
    if len(sliced) != len(record.images):
        raise DxsegError(f"{path}: {len(record.images)} images, but {len(sliced)} slices; {remedy}")
    return VolumeGrid(affine, sliced, {name: n for n, name in enumerate(record.images)})
