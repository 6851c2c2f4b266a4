"""Extensions of NIfTI headers: sizes that are nonsense are refused before they are read."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest

from dxseg.data.readers.nifti import read_nifti
from dxseg.errors import DxsegError

KINDS = [nibabel.Nifti1Image, nibabel.Nifti2Image]


def bomb(path: Path, kind: type, order: str, sizes: list[int], offset: float) -> Path:
    """A small gzip stream of 64 MB, whose extensions claim some sizes."""
    header = kind.header_class(endianness=order)
    header.set_data_shape((2, 2, 2))
    header["vox_offset"], header["magic"] = offset, b"n+1"
    parts = [struct.pack(f"{order}ii", size, 6).ljust(32, b"x") for size in sizes]
    with gzip.open(path, "wb") as stream:
        stream.write(header.binaryblock + b"\1\0\0\0" + b"".join(parts))
        for _ in range(64):
            stream.write(bytes(2**20))
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("sizes", "offset"),
    [([7], 4096), ([32, 7], 4096), ([-5], 4096), ([8192], 4096), ([2**25], 0), ([2**27], 2**28)],
)
def test_extensions_that_lead_to_the_end_of_the_stream_are_not_read(
    tmp_path: Path, kind: type, order: str, sizes: list[int], offset: int
) -> None:
    path = bomb(tmp_path / "a.nii.gz", kind, order, sizes, offset)
    tracemalloc.start()
    with pytest.raises(DxsegError, match=r"a\.nii\.gz: extension .* of its header claims"):
        read_nifti(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", KINDS)
def test_extensions_do_no_harm(tmp_path: Path, kind: type, suffix: str) -> None:
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = kind(data, np.diag([-2, 2, 2, 1]))
    for text in (b"a comment", b"another" * 100):
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", text))
    image.to_filename(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_nifti(tmp_path / f"a{suffix}").voxels, data)
