"""Writing label maps as NIfTI, on exactly the grid of their volume."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.readers.nifti import open_nifti
from dxseg.io.atomic import atomic_path

_GZIP_LEVEL = 6
# Fields of the header that may hold free text, hence names; NIfTI-2 has no db_name.
_FREE_TEXT = ("descrip", "aux_file", "db_name", "intent_name")


def write_label_map(path: Path, mask: NDArray[np.uint8], source: Path) -> None:
    """Write a label map as NIfTI on exactly the grid of the NIfTI file of its volume.

    Shape (without a fourth dimension of several sequences), affine, sform and qform with their
    codes, and units are those of the source. Free text and extensions of its header, which may
    identify a patient, are left out.

    Args:
        path: A `.nii.gz` file, written atomically.
        mask: (I, J, K).
        source: The NIfTI file of the volume.

    Raises:
        DxsegError: The source can no longer be read.
    """
    like = open_nifti(source)
    header = like.header.copy()
    header.extensions.clear()
    for field in set(_FREE_TEXT) & set(header.keys()):
        header[field] = b""
    header["cal_min"], header["cal_max"] = 0, 0
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header.set_intent("label")
    # Without an affine of its own the image keeps the one of the header, bit for bit.
    shape = like.shape if mask.size == np.prod(like.shape) else mask.shape
    _write(path, type(like)(mask.reshape(shape), None, header))


def write_label_map_at(path: Path, mask: NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    """Write a label map as NIfTI for a volume in another format.

    Args:
        path: A `.nii.gz` file, written atomically.
        mask: (I, J, K).
        affine: (4, 4), from voxel indices to millimeters in RAS+; sform and qform are set to it.
    """
    import nibabel

    image = nibabel.Nifti1Image(mask, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label")
    for name in ("sform", "qform"):
        getattr(image, f"set_{name}")(affine, code="scanner")
    _write(path, image)


def _write(path: Path, image: Any) -> None:
    with atomic_path(path, flush=False) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), _GZIP_LEVEL, mtime=0))
