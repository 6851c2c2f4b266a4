"""NRRD and MetaImage: the same volume as in NIfTI, hostile headers, label maps on the same grid."""

from __future__ import annotations

import sys
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dxseg.data.readers.itk import write_itk_label_map
from dxseg.data.readers.volume_files import (
    VOLUME_FORMATS,
    is_volume_file,
    read_volume_file,
    volume_format,
    volume_grid,
    volume_stem,
)
from dxseg.errors import DxsegError
from volume_phantom import TURNS, ct, save, turned, turned_affine

sitk = pytest.importorskip("SimpleITK")

VOXELS, LABELS = ct()
SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
META = b"""ObjectType = Image
NDims = 3
DimSize = 4 3 2
ElementType = MET_UCHAR
ElementDataFile = LOCAL
"""
NRRD = b"""NRRD0004
type: uint8
dimension: 3
sizes: 4 3 2
encoding: raw

"""
PIXELS = bytes(range(24))


def write(path: Path, array: Any, affine: Any, compressed: bool = True) -> Path:
    """Write an array (I, J, K) by SimpleITK; its affine is in RAS+."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose()))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetMetaData("PatientName", "Doe^Jane")
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=compressed)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("turn", TURNS[::11])
def test_a_volume_lies_where_nifti_has_it(tmp_path: Path, suffix: str, turn: Any) -> None:
    nifti = read_volume_file(save(tmp_path / "a.nii.gz", VOXELS, turn))
    stored = turned(VOXELS, turn)
    path = write(tmp_path / f"b{suffix}", stored, turned_affine(turn))
    volume = read_volume_file(path)
    np.testing.assert_array_equal(volume.voxels, nifti.voxels)
    np.testing.assert_allclose(volume.affine, nifti.affine, atol=1e-6)
    assert volume.voxels.dtype == np.int16
    assert volume.notes == ()
    affine, shape = volume_grid(path)
    np.testing.assert_array_equal(affine, volume.affine)
    assert shape == stored.shape


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("compressed", [True, False])
def test_types(tmp_path: Path, dtype: str, suffix: str, compressed: bool) -> None:
    data = np.arange(24).reshape(2, 3, 4).astype(dtype)
    volume = read_volume_file(write(tmp_path / f"a{suffix}", data, np.eye(4), compressed))
    np.testing.assert_array_equal(volume.voxels, data)
    assert volume.voxels.dtype == (np.float32 if dtype[0] == "f" else np.dtype(dtype))


def test_voxels_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    data = np.full((2, 3, 4), np.nan, np.float32)
    assert read_volume_file(write(tmp_path / "a.nrrd", data, np.eye(4))).notes == (
        "24 voxels are not finite",
    )


def test_a_nrrd_without_a_space_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(NRRD + PIXELS)
    volume = read_volume_file(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(volume.voxels.ravel(order="F"), range(24))
    assert volume.notes == ("its header has no orientation; LPS is assumed",)


def test_a_segmentation_of_3d_slicer_has_long_lines(tmp_path: Path) -> None:
    parameters = "".join(
        f"Parameter {n}|{n / 7}|{'What the parameter means. ' * 2}&" for n in range(16)
    )
    segments = "".join(f"Segment{n}_Tags:={'TerminologyEntry:' * 50}\n" for n in range(104))
    added = f"Segmentation_ConversionParameters:={parameters}\n{segments}"
    (tmp_path / "a.seg.nrrd").write_bytes(NRRD[:-1] + added.encode() + b"\n" + PIXELS)
    assert read_volume_file(tmp_path / "a.seg.nrrd").voxels.max() == 23


@pytest.mark.parametrize(("suffix", "written"), [(".nrrd", ".nrrd"), (".mhd", ".mha")])
def test_a_label_map_lies_as_its_source_and_names_nobody(
    tmp_path: Path, suffix: str, written: str
) -> None:
    source = write(tmp_path / f"in/Jane{suffix}", VOXELS, turned_affine(TURNS[7]))
    assert volume_format(source).mask_suffix == written
    target = tmp_path / f"out{written}"
    write_itk_label_map(target, LABELS, source)
    back = read_volume_file(target)
    np.testing.assert_array_equal(back.voxels, LABELS)
    np.testing.assert_array_equal(back.affine, read_volume_file(source).affine)
    assert b"Jane" not in target.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"in", target.name}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("a.mha", b"\n" * 2**18, "no header of MetaImage", id="empty lines"),
        pytest.param("a.mha", b"a" + b" " * 2**17 + b"b\n" + META, "longer than 1000", id="blanks"),
        pytest.param("a.nrrd", NRRD[:-1] + b"a:=" * 2**17, "no header of NRRD", id="no end"),
    ],
)
def test_long_headers_are_refused_at_once(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    began = time.process_time()
    with pytest.raises(DxsegError, match=message):
        read_volume_file(tmp_path / name)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mha", b"", "no header of MetaImage"),
        ("a.nrrd", b"", "no header of NRRD"),
        ("a.nrrd", META, "no header of NRRD"),
        ("a.mha", META.replace(b"4 3 2", b"40000 40000 40000"), "claims 40000 x 40000 x 40000"),
        ("a.mha", META.replace(b"4 3 2", b"4 0 2"), "three dimensions above 0"),
        ("a.mha", META.replace(b"4 3 2", b"4 -3 2"), "three dimensions above 0"),
        ("a.mha", META.replace(b"NDims = 3", b"NDims = 100000"), "dimension '100000'"),
        ("a.mha", META.replace(b"4 3 2", b"999 999 999"), "cut short: claims 997002999 bytes"),
        ("a.mha", META.replace(b"NDims", b"NDims = 3\nNDims"), "is repeated"),
        ("a.mha", b"Comment = " + b"x" * 2000 + b"\n" + META, "longer than 1000"),
        ("a.mha", META + PIXELS[:-1], "damaged or cut short"),
        ("a.mha", META.replace(b"MET_UCHAR", b"MET_PONY") + PIXELS, "damaged or cut short"),
        ("a.nrrd", NRRD.replace(b"4 3 2", b"99999 99999 99999"), "claims 99999 x"),
        ("a.nrrd", NRRD.replace(b"sizes: 4 3 2", b"sizes: 4 3"), "sizes '4 3'"),
        ("a.nrrd", NRRD.replace(b"raw", b"bzip2"), "encoding 'bzip2'; expected raw"),
        ("a.nrrd", NRRD + PIXELS[:-1], "damaged or cut short"),
        ("a.nrrd", NRRD.replace(b"dimension: 3", b"dimension: 4"), "dimension '4'"),
    ],
)
def test_headers_that_lie_are_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DxsegError, match=message) as caught:
        read_volume_file(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    assert name in str(caught.value)


@pytest.mark.parametrize("place", ["../secret.raw", "/etc/passwd", "a%d.raw 1 2 1", "LIST", "x\0"])
@pytest.mark.parametrize("is_nrrd", [True, False])
def test_voxels_elsewhere_are_not_read(tmp_path: Path, place: str, is_nrrd: bool) -> None:
    (tmp_path / "secret.raw").write_bytes(PIXELS)
    (tmp_path / "in").mkdir()
    path = tmp_path / ("in/a.nhdr" if is_nrrd else "in/a.mhd")
    if is_nrrd:
        path.write_bytes(NRRD[:-1] + f"data file: {place}\n".encode())
    else:
        path.write_bytes(META.replace(b"LOCAL", place.encode()))
    with pytest.raises(DxsegError, match="expected one file in the same folder"):
        read_volume_file(path)
    (tmp_path / "in/link.raw").symlink_to(tmp_path / "secret.raw")
    path.write_bytes(META.replace(b"LOCAL", b"link.raw") if not is_nrrd else path.read_bytes())
    with pytest.raises(DxsegError, match="expected one file in the same folder"):
        read_volume_file(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_damaged_streams_are_refused(tmp_path: Path, suffix: str) -> None:
    # SimpleITK itself returns noise for a MetaImage whose stream is damaged.
    path = write(tmp_path / f"a{suffix}", VOXELS, np.eye(4))
    whole = path.read_bytes()
    damaged = whole[:-200] + bytes([whole[-200] ^ 255]) + whole[-199:]
    for content in (whole[:-30], damaged):
        path.write_bytes(content)
        with pytest.raises(DxsegError, match="damaged or cut short"):
            read_volume_file(path)


def test_a_stream_that_continues_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mha", np.zeros((64, 64, 64), np.uint8), np.eye(4))
    path.write_bytes(path.read_bytes().replace(b"64 64 64", b"64 64 32"))
    with pytest.raises(DxsegError, match="continues beyond its last voxel"):
        read_volume_file(path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    is_nrrd=st.booleans(),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 400),
)
def test_damaged_bytes_give_a_volume_or_our_error(
    tmp_path: Path, is_nrrd: bool, changes: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray((NRRD if is_nrrd else META) + PIXELS)
    for place, value in changes:
        content[place % len(content)] = value
    path = tmp_path / ("a.nrrd" if is_nrrd else "a.mha")
    path.write_bytes(content[: len(content) - cut] if cut % 2 else content)
    with suppress(DxsegError):
        assert read_volume_file(path).voxels.ndim == 3


def test_without_simpleitk_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.nrrd", LABELS, np.eye(4))
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(DxsegError, match=r"pip install 'dxseg\[itk\]'"):
        read_volume_file(path)


def test_names() -> None:
    assert set(SUFFIXES) < set(VOLUME_FORMATS)
    assert [is_volume_file(name) for name in ("a.NRRD", "a.nii.gz", "a.raw", "nrrd")] == [
        1,
        1,
        0,
        0,
    ]
    assert [volume_stem(name) for name in ("a.seg.nrrd", "b.NII.gz", "c.png")] == [
        "a.seg",
        "b",
        "c.png",
    ]
    with pytest.raises(DxsegError, match=r"expected a name that ends in \.nii"):
        volume_format("a.raw")
