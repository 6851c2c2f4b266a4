"""Reading volumes from NIfTI files.

nibabel reads the files; this module checks headers: sizes that the file cannot have, affines that
are no position in space, streams that are cut short. nibabel accepts all of these.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dxseg.data.readers.volume import (
    GZIP_RATIO,
    VOXEL_LIMIT,
    Grid,
    Volume,
    check_affine,
    count_not_finite,
    times,
)
from dxseg.errors import DxsegError

SUFFIXES = (".nii.gz", ".nii")
_GZIP_SLACK = _BLOCK = 2**20
_EXTENSIONS, _EXTENSION_BYTES, _EXTENSION_START = 1024, 2**26, 16
_MILLIMETRES: Mapping[str, float] = {"meter": 1000.0, "micron": 0.001}
_IDENTITY = (
    "its header has the identity for its position, as if nobody had filled it in: sizes in mm, and "
    "left and right, may be wrong"
)


def is_nifti(path: str | Path) -> bool:
    """Whether the name of a file is that of NIfTI."""
    return Path(path).name.lower().endswith(SUFFIXES)


def read_nifti(path: str | Path, sequences: int = 1) -> Volume:
    """Read a volume.

    Rescaling (scl_slope, scl_inter) is applied. The affine is the sform, else the qform;
    meters and micrometers become millimeters. Dimensions of size 1 beyond the third are dropped.

    Args:
        path: A `.nii` or `.nii.gz` file, NIfTI-1 or NIfTI-2.
        sequences: Expected length of the fourth dimension.

    Returns:
        (I, J, K) whole numbers as stored, or float32.

    Raises:
        DxsegError: The file is absent, empty, cut short or damaged; has another fourth
            dimension, colors or complex numbers; its affine is no position in space; or it is too
            large.
    """
    path = Path(path)
    image = open_nifti(path)
    affine, shape = _grid(image, path, sequences)
    _check_claim(image, path)
    notes = []
    if int(image.header["sform_code"]) == int(image.header["qform_code"]) == 0:
        notes.append("its header has no orientation; the first axis is assumed to lead leftwards")
    elif np.array_equal(affine, np.eye(4)):
        notes.append(_IDENTITY)
    voxels = _voxels(image, path).reshape((*shape, sequences))
    notes.extend(count_not_finite(voxels))
    first, *others = (voxels[..., number] for number in range(sequences))
    return Volume(first, affine, tuple(notes), tuple(others))


def nifti_grid(path: str | Path, sequences: int = 1) -> Grid:
    """Read the grid of a volume from its header.

    Args:
        path: A `.nii` or `.nii.gz` file.
        sequences: Expected length of the fourth dimension.

    Returns:
        The affine (4, 4), from voxel indices to millimeters, and the shape (I, J, K).

    Raises:
        DxsegError: As `read_nifti`, as far as the header shows it.
    """
    return _grid(open_nifti(Path(path)), Path(path), sequences)


def open_nifti(path: Path) -> Any:
    """Read the header; voxels are loaded later.

    Raises:
        DxsegError: The file is absent, empty, or no NIfTI.
    """
    import nibabel

    if not is_nifti(path):
        raise DxsegError(f"{path}: expected a file whose name ends in .nii or .nii.gz")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DxsegError(f"{path}: cannot be read ({error.strerror}); expected NIfTI") from error
    if size == 0:
        raise DxsegError(f"{path}: is empty (0 bytes); expected NIfTI; copy it again")
    try:
        _check_extensions(path)
        # Not memory-mapped: a file that shrinks while it is read would end the process.
        image = nibabel.load(path, mmap=False)
    except DxsegError:
        raise
    except Exception as error:
        # nibabel and gzip raise nearly every type there is on hostile files.
        raise DxsegError(
            f"{path}: damaged or no NIfTI ({type(error).__name__}: {error}); expected a complete "
            "file; copy or export it again"
        ) from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise DxsegError(f"{path}: is {type(image).__name__}; expected one file of NIfTI-1 or -2")
    return image


def _check_extensions(path: Path) -> None:
    """Check the sizes of the header's extensions, whose content nibabel reads.

    It takes a size of 7, or voxels that begin before the extensions, for "up to the end", which a
    small gzip stream may have far away.

    Raises:
        DxsegError: They are nonsense.
    """
    import nibabel

    opened: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rb") as stream:
        kinds: Any = (nibabel.Nifti1Header, nibabel.Nifti2Header)
        for kind in kinds:
            stream.seek(0)
            start = stream.read(kind.sizeof_hdr)
            if kind.may_contain_header(start) and stream.read(4)[:1] > b"\0":
                _walk_extensions(stream, kind(start, check=False), path)


def _walk_extensions(stream: IO[bytes], header: Any, path: Path) -> None:
    order: Literal["little", "big"] = "little" if header.endianness == "<" else "big"
    place, end, number = stream.tell(), float(header["vox_offset"]), 0
    while not 0 <= end - place < _EXTENSION_START:
        stream.seek(place)
        length = int.from_bytes(stream.read(4), order, signed=True)
        place, number = place + length, number + 1
        fits = length >= _EXTENSION_START and place <= min(end, _EXTENSION_BYTES)
        if not fits or number > _EXTENSIONS:
            raise DxsegError(
                f"{path}: extension {number} of its header claims {length} bytes, with voxels from "
                f"byte {end:.0f} on; expected at most {_EXTENSIONS}, before the voxels and below "
                f"{_EXTENSION_BYTES} bytes; save it without extensions"
            )


def _grid(image: Any, path: Path, sequences: int) -> Grid:
    shape = _shape(image, path, sequences)
    return _affine(image, path), shape


def _shape(image: Any, path: Path, sequences: int) -> tuple[int, int, int]:
    shape = tuple(int(length) for length in image.shape)
    if min(shape, default=0) < 1 or len(shape) < 3:
        raise DxsegError(f"{path}: {times(shape)} voxels; expected three dimensions")
    if [length for length in shape[3:] if length != 1] != [sequences][sequences == 1 :]:
        expected = (
            "three dimensions; split it into one file per time point or channel (such as with "
            "`nibabel.four_to_three`)"
            if sequences == 1
            else f"a fourth dimension of {sequences} sequences; join the files in their order "
            "(such as with `nibabel.concat_images`)"
        )
        raise DxsegError(f"{path}: {times(shape)} voxels; expected {expected}")
    return shape[0], shape[1], shape[2]


def _check_claim(image: Any, path: Path) -> None:
    """Check that the type is one of intensities, and that the file can hold the claimed size."""
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DxsegError(
            f"{path}: voxels of type {dtype}; expected whole numbers or floats; convert colors "
            "or complex numbers to one gray value"
        )
    voxels = math.prod(image.shape)
    if voxels > VOXEL_LIMIT:
        raise DxsegError(
            f"{path}: claims {times(image.shape)} voxels; expected at most {VOXEL_LIMIT} in all; "
            "crop or resample it"
        )
    needed = voxels * dtype.itemsize
    size = path.stat().st_size
    held = size * GZIP_RATIO if path.name.lower().endswith(".gz") else size
    if needed > held:
        raise DxsegError(
            f"{path}: cut short: claims {needed} bytes of voxels, has {size} bytes in all; copy it "
            "again"
        )


def _affine(image: Any, path: Path) -> NDArray[np.float64]:
    affine = np.array(image.affine, dtype=np.float64)
    try:
        unit = image.header.get_xyzt_units()[0]
    except KeyError as error:
        raise DxsegError(
            f"{path}: code {error.args[0]} of a unit of space or time does not exist (xyzt_units); "
            "correct the header"
        ) from error
    affine[:3] *= _MILLIMETRES.get(unit, 1.0)
    check_affine(affine, path)
    return affine


def _voxels(image: Any, path: Path) -> NDArray[Any]:
    stored = image.get_data_dtype()
    plain = stored.kind in "iu" and (image.dataobj.slope, image.dataobj.inter) == (1.0, 0.0)
    try:
        if path.name.lower().endswith(".gz"):
            voxels = math.prod(image.shape) * stored.itemsize
            _check_gzip(path, int(image.dataobj.offset) + voxels)
        if plain:
            return np.asarray(image.dataobj.get_unscaled()).astype(stored.newbyteorder("="))
        with np.errstate(over="ignore"):
            scaled: NDArray[np.float32] = image.get_fdata(dtype=np.float32, caching="unchanged")
            return scaled
    except Exception as error:
        raise DxsegError(
            f"{path}: damaged or cut short ({type(error).__name__}: {error}); copy it again"
        ) from error


def _check_gzip(path: Path, needed: int) -> None:
    """Read a stream to its end, where the checksum is; nibabel stops after the last voxel."""
    left = needed + _GZIP_SLACK
    with gzip.open(path) as stream:
        while block := stream.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise ValueError("continues far beyond its last voxel")
