"""Reading and writing volumes of NRRD and MetaImage (MHA, MHD), through SimpleITK.

SimpleITK trusts headers: it allocates what they claim, and reads any file that they name. Of a
damaged stream of MetaImage it returns noise. So `itk_headers` reads the header as text first, and
this module checks compressed voxels itself.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.readers.itk_headers import ItkHeader, is_nrrd, read_header
from dxseg.data.readers.volume import (
    GZIP_RATIO,
    Grid,
    Volume,
    check_affine,
    count_not_finite,
    times,
)
from dxseg.errors import DxsegError
from dxseg.io.atomic import atomic_path

_ZLIB_OR_GZIP = 47
"""Of `zlib`: either header, and the largest window."""
_BLOCK = 2**20


def read_itk(path: str | Path, sequences: int = 1) -> Volume:
    """Read a volume.

    Args:
        path: A `.nrrd`, `.nhdr`, `.mha` or `.mhd` file; voxels may be in a file beside it.
        sequences: Expected number of images; only one is supported.

    Returns:
        (I, J, K) whole numbers as stored, or float32.

    Raises:
        DxsegError: SimpleITK is not installed; the file is absent, empty, cut short or damaged; has
            not three dimensions, or several values per voxel; its position is none in space; its
            voxels are in another folder; or it is too large.
    """
    path = Path(path)
    header = read_header(path)
    _check_sequences(path, sequences)
    reader = _open(path, header)
    try:
        if header.is_compressed:
            _check_stream(header, _voxel_bytes(reader))
        image = reader.Execute()
        voxels = _sitk(path).GetArrayFromImage(image).transpose()
    except (RuntimeError, MemoryError, OSError, ValueError, zlib.error) as error:
        raise _damaged(path, error) from error
    if voxels.dtype == np.float64:
        with np.errstate(over="ignore"):
            voxels = voxels.astype(np.float32)
    notes = [] if header.has_orientation else ["its header has no orientation; LPS is assumed"]
    return Volume(voxels, _affine(image, path), (*notes, *count_not_finite(voxels)))


def itk_grid(path: str | Path, sequences: int = 1) -> Grid:
    """Read the grid of a volume from its header.

    Args:
        path: The file.
        sequences: Expected number of images; only one is supported.

    Raises:
        DxsegError: As `read_itk`, as far as the header shows it.
    """
    path = Path(path)
    header = read_header(path)
    _check_sequences(path, sequences)
    return _affine(_open(path, header), path), header.shape


def itk_files(path: Path) -> list[Path]:
    """The files that a volume consists of: the header, and its voxels where they are apart.

    Args:
        path: The file.

    Raises:
        DxsegError: The header is wrong.
    """
    return list(dict.fromkeys([path, read_header(path).data]))


def write_itk_label_map(path: Path, mask: NDArray[np.uint8], source: Path) -> None:
    """Write a label map on exactly the grid of its volume; no text of the source is copied.

    Args:
        path: A `.nrrd` or `.mha` file, written atomically.
        mask: (I, J, K).
        source: The file of the volume.

    Raises:
        DxsegError: The source can no longer be read.
    """
    sitk = _sitk(source)
    reader = _open(source, read_header(source))
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask.transpose()))
    image.SetSpacing(reader.GetSpacing())
    image.SetOrigin(reader.GetOrigin())
    image.SetDirection(reader.GetDirection())
    with atomic_path(path, flush=False) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def _sitk(path: Path) -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise DxsegError(
            f"{path}: NRRD and MetaImage need SimpleITK; pip install 'dxseg[itk]', or convert the "
            "file to NIfTI"
        ) from error
    return SimpleITK


def _open(path: Path, header: ItkHeader) -> Any:
    """A reader that has read the header."""
    reader = _sitk(path).ImageFileReader()
    # By name, so that no other of SimpleITK's many readers takes the file.
    reader.SetImageIO("NrrdImageIO" if is_nrrd(path) else "MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _damaged(path, error) from error
    if reader.GetSize() != header.shape or reader.GetNumberOfComponents() != 1:
        raise DxsegError(
            f"{path}: {times(reader.GetSize())} voxels of {reader.GetNumberOfComponents()} values; "
            "expected three dimensions and one value per voxel; split it"
        )
    needed = _voxel_bytes(reader)
    held = header.data.stat().st_size
    if needed > held * GZIP_RATIO:
        raise DxsegError(
            f"{path}: cut short: claims {needed} bytes of voxels, {header.data.name} has {held}; "
            "copy it again"
        )
    return reader


def _voxel_bytes(reader: Any) -> int:
    # SimpleITK numbers its scalar types: integers of 8 to 64 bit, unsigned and signed, then floats.
    sizes = (1, 1, 2, 2, 4, 4, 8, 8, 4, 8)
    return int(math.prod(reader.GetSize()) * sizes[reader.GetPixelIDValue()])


def _check_stream(header: ItkHeader, needed: int) -> None:
    """Decompress the voxels once, to their checksum, and keep nothing."""
    inflate, left = zlib.decompressobj(_ZLIB_OR_GZIP), needed
    with header.data.open("rb") as stream:
        stream.seek(header.offset)
        while not inflate.eof:
            block = inflate.unconsumed_tail or stream.read(_BLOCK)
            if not block:
                raise ValueError("its compressed voxels end too early")
            left -= len(inflate.decompress(block, _BLOCK))
            if left < 0:
                raise ValueError("continues beyond its last voxel")
    if left:
        raise ValueError(f"{left} bytes of voxels are missing")


def _check_sequences(path: Path, sequences: int) -> None:
    if sequences != 1:
        raise DxsegError(
            f"{path}: one image; expected {sequences} sequences; give one file each (--channel), "
            "or one NIfTI file with a fourth dimension"
        )


def _affine(image: Any, path: Path) -> NDArray[np.float64]:
    """From voxel indices to millimeters in RAS+, of LPS+ as SimpleITK has it."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    check_affine(affine, path)
    return affine


def _damaged(path: Path, error: BaseException) -> DxsegError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = (lines[-1] if lines else type(error).__name__).strip()[:200]
    return DxsegError(f"{path}: damaged or cut short ({reason}); copy or export it again")
