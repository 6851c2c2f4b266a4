"""NIfTI: quirks of headers, label maps on their image's grid, hostile files."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dxseg.data.readers.label_maps import read_label_map
from dxseg.data.readers.nifti import nifti_grid, read_nifti
from dxseg.data.readers.nifti_writer import write_label_map
from dxseg.errors import DxsegError
from volume_phantom import RAS, SHAPE, TURNS, ct, save, turned, turned_affine

AFFINE = turned_affine(RAS, (2, 3, 4), (1, 2, 3))


def write(path: Path, data: np.ndarray, kind: type = nibabel.Nifti1Image, **header: object) -> Path:
    image = kind(data, AFFINE)
    for field, value in header.items():
        image.header[field] = value
    image.to_filename(path)
    return path


def header_bytes(path: Path) -> bytearray:
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u2", "i4", "f4", "f8"])
def test_types_and_versions(tmp_path: Path, suffix: str, kind: type, dtype: str) -> None:
    data = np.arange(24).reshape(2, 3, 4).astype(dtype)
    volume = read_nifti(write(tmp_path / f"a{suffix}", data, kind))
    np.testing.assert_array_equal(volume.voxels, data)
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert volume.voxels.dtype.isnative
    expected = np.float32 if np.dtype(dtype).kind == "f" else np.dtype(dtype).newbyteorder("=")
    assert volume.voxels.dtype == expected
    assert volume.spacing == (1, 2, 3)
    assert volume.notes == ()


def test_big_endian_headers(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nibabel.Nifti1Image(data, AFFINE, header).to_filename(tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == struct.pack(">i", 348)
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii").voxels, data)


def test_rescaling_is_applied(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(data, AFFINE)
    image.header.set_slope_inter(2, -1024)
    image.to_filename(tmp_path / "a.nii")
    stored = header_bytes(tmp_path / "a.nii")
    # nibabel divides by the slope in writing; the numbers in the file are put back.
    stored[352:] = data.tobytes(order="F")
    (tmp_path / "a.nii").write_bytes(stored)
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii").voxels, 2.0 * data - 1024)


def test_trailing_dimensions_of_one_are_dropped_and_others_refused(tmp_path: Path) -> None:
    data = np.zeros((2, 3, 4, 1, 1), np.int16)
    assert read_nifti(write(tmp_path / "a.nii.gz", data)).voxels.shape == (2, 3, 4)
    for shape in ((2, 3, 4, 2), (2, 3, 4, 1, 3), (2, 3)):
        with pytest.raises(DxsegError, match=r"b\.nii: .*expected three dimensions"):
            read_nifti(write(tmp_path / "b.nii", np.zeros(shape, np.int16)))


def test_units_become_millimeters(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), AFFINE)
    for unit, factor in (("mm", 1), ("unknown", 1), ("meter", 1000), ("micron", 0.001)):
        image.header.set_xyzt_units(unit)
        image.to_filename(tmp_path / "a.nii")
        np.testing.assert_allclose(
            read_nifti(tmp_path / "a.nii").affine[:3], factor * AFFINE[:3], rtol=1e-6
        )


def test_sform_goes_before_qform_and_neither_is_told(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.uint8), None)
    image.header.set_qform(np.diag([-1, -2, 3, 1]), code=1)
    image.to_filename(tmp_path / "q.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "q.nii").affine, np.diag([-1, -2, 3, 1]))
    image.header.set_sform(AFFINE, code=2)
    image.to_filename(tmp_path / "both.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "both.nii").affine, AFFINE)
    image.header["qform_code"] = image.header["sform_code"] = 0
    image.to_filename(tmp_path / "none.nii")
    volume = read_nifti(tmp_path / "none.nii")
    assert "no orientation" in volume.notes[0]
    assert volume.affine[0, 0] < 0


def test_voxels_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    data = np.zeros((2, 3, 4), np.float32)
    data[0, 0, :2] = np.nan, np.inf
    assert read_nifti(write(tmp_path / "a.nii", data)).notes == ("2 voxels are not finite",)


@pytest.mark.parametrize("turn", TURNS[::5], ids=str)
def test_a_label_map_stored_in_another_order_is_turned(tmp_path: Path, turn) -> None:
    _, labels = ct()
    path = save(tmp_path / "labels.nii.gz", labels, turn)
    read = read_label_map(path, (turned_affine(RAS), SHAPE)).values
    np.testing.assert_array_equal(read, labels)
    image_turn = TURNS[17]
    grid = nifti_grid(save(tmp_path / "image.nii.gz", labels, image_turn))
    np.testing.assert_array_equal(read_label_map(path, grid).values, turned(labels, image_turn))


def test_label_maps_on_another_grid_are_refused(tmp_path: Path) -> None:
    _, labels = ct()
    moved = turned_affine(RAS)
    moved[0, 3] += 0.3 * 0.75
    near = save(tmp_path / "near.nii", labels, affine=moved)
    np.testing.assert_array_equal(read_label_map(near, (turned_affine(RAS), SHAPE)).values, labels)
    moved[0, 3] += 0.3 * 0.75
    far = save(tmp_path / "far.nii", labels, affine=moved)
    coarse = save(tmp_path / "coarse.nii", labels, affine=turned_affine(RAS, spacing=(0.8, 0.8, 5)))
    small = save(tmp_path / "small.nii", labels[:-1])
    for path, words in ((far, "0.6 voxels away"), (coarse, "voxels away"), (small, "31 x 24 x 10")):
        with pytest.raises(DxsegError, match=f"{path.name}: .*{words}.*resample"):
            read_label_map(path, (turned_affine(RAS), SHAPE))


def test_label_maps_hold_whole_numbers(tmp_path: Path) -> None:
    grid = (AFFINE, (2, 3, 4))
    whole = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    read = read_label_map(write(tmp_path / "a.nii", whole), grid)
    np.testing.assert_array_equal(read.values, whole)
    assert read.notes == ()
    near = whole + np.linspace(-0.04, 0.04, 24).reshape(whole.shape)
    read = read_label_map(write(tmp_path / "near.nii", near), grid)
    np.testing.assert_array_equal(read.values, whole)
    assert "rounded" in read.notes[0]
    nan = np.where(whole == 3, np.nan, whole)
    read = read_label_map(write(tmp_path / "nan.nii", nan), grid)
    np.testing.assert_array_equal(read.values, np.where(whole == 3, 0, whole))
    assert read.notes == ("label map: 1 voxels are NaN, read as background",)
    for wrong in (whole + 0.5, whole + 0.06, whole - 1, whole * 1e5, whole + np.inf):
        with pytest.raises(DxsegError, match=r"b\.nii: values .*whole numbers"):
            read_label_map(write(tmp_path / "b.nii", wrong), grid)


def test_a_written_label_map_lies_as_its_source_and_names_nobody(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4, 1), np.int16), None)
    image.header.set_qform(AFFINE, code=1)
    image.header.set_sform(AFFINE + 1e-4, code=4)
    image.header.set_xyzt_units("micron")
    image.header.set_slope_inter(3, 7)
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        image.header[field] = b"DOE^JANE"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
    image.to_filename(tmp_path / "a.nii")
    mask = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_label_map(tmp_path / "out/m.nii.gz", mask, tmp_path / "a.nii")
    written, source = (nibabel.load(tmp_path / name) for name in ("out/m.nii.gz", "a.nii"))
    np.testing.assert_array_equal(np.asarray(written.dataobj)[..., 0], mask)
    assert written.shape == source.shape
    assert written.get_data_dtype() == np.uint8
    for field in ("pixdim", "qform_code", "sform_code", "xyzt_units", "srow_x", "quatern_b"):
        np.testing.assert_array_equal(written.header[field], source.header[field])
    np.testing.assert_array_equal(written.affine, source.affine)
    assert b"DOE" not in gzip.decompress((tmp_path / "out/m.nii.gz").read_bytes())


# From here on: files that are not what they claim.


def refused(path: Path, words: str) -> None:
    tracemalloc.start()
    with pytest.raises(DxsegError, match=words) as caught:
        read_nifti(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert peak < 2**25, "refused before memory is taken"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_files_that_are_cut_empty_or_no_nifti(tmp_path: Path, suffix: str) -> None:
    data = np.random.default_rng(0).integers(0, 1000, (20, 30, 10)).astype(np.int16)
    whole = write(tmp_path / f"whole{suffix}", data).read_bytes()
    path = tmp_path / f"a{suffix}"
    for length in (1, 100, 347, 352, 400, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:length])
        refused(path, "damaged|cut short")
    if suffix == ".nii.gz":
        changed = bytearray(whole)
        changed[-6] ^= 1  # of the checksum
        path.write_bytes(changed)
        refused(path, "damaged")
        path.write_bytes(whole + gzip.compress(bytes(2**22)))
        refused(path, "far beyond its last voxel")
    path.write_bytes(b"")
    refused(path, "empty")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(400))
    refused(path, "no NIfTI")
    refused(tmp_path / f"absent{suffix}", "cannot be read")
    path.unlink()
    path.mkdir()
    refused(path, "damaged|cannot be read")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_headers_that_claim_more_than_there_is(tmp_path: Path, suffix: str) -> None:
    plain = header_bytes(write(tmp_path / "plain.nii", np.zeros((2, 3, 4), np.int16)))
    path = tmp_path / f"a{suffix}"

    def claim(*dims: int, bytes_more: int = 0) -> None:
        changed = bytearray(plain)
        changed[40:56] = struct.pack("<8h", len(dims), *dims, *[1] * (7 - len(dims)))
        content = bytes(changed) + bytes(bytes_more)
        path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)

    claim(32767, 32767, 32767)
    refused(path, "claims 32767 x 32767 x 32767 voxels")
    claim(1000, 1000, 1000)
    refused(path, "cut short: claims 2000000000 bytes")
    for dims in ((0, 3, 4), (-2, 3, 4), (2, 3, -32768)):
        claim(*dims)
        refused(path, "three dimensions|damaged")


@pytest.mark.parametrize(
    ("name", "affine"),
    [
        ("nan", np.full((4, 4), np.nan)),
        ("infinite", np.diag([np.inf, 1, 1, 1])),
        ("zero", np.diag([0, 1, 1, 1])),
        ("two axes alike", np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    ],
)
def test_affines_that_are_no_position(tmp_path: Path, name: str, affine: np.ndarray) -> None:
    path = write(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16))
    stored = header_bytes(path)
    stored[280:328] = np.asarray(affine, "<f4")[:3].tobytes()
    path.write_bytes(stored)
    refused(path, "affine .* no position in space|damaged")


@pytest.mark.parametrize("dtype", [[("R", "u1"), ("G", "u1"), ("B", "u1")], "c8", "c16"])
def test_colors_and_complex_numbers_are_refused(tmp_path: Path, dtype) -> None:
    path = tmp_path / "a.nii"
    nibabel.Nifti1Image(np.zeros((2, 3, 4), dtype), AFFINE).to_filename(path)
    refused(path, "voxels of type .*expected whole numbers or floats")


def test_other_formats_and_names_are_refused(tmp_path: Path) -> None:
    mgh = nibabel.MGHImage(np.zeros((2, 3, 4), np.int16), AFFINE)
    mgh.to_filename(tmp_path / "a.mgz")
    refused(tmp_path / "a.mgz", r"\.nii")
    (tmp_path / "a.mgz").rename(tmp_path / "a.nii.gz")
    refused(tmp_path / "a.nii.gz", "no NIfTI")


BUNDLED = sorted((Path(nibabel.__file__).parent / "tests" / "data").glob("*.nii*"))


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.name)
def test_files_that_come_with_nibabel_are_read_or_refused(path: Path) -> None:
    shape = nibabel.load(path).shape
    if len(shape) == 3:
        assert read_nifti(path).voxels.shape == shape
    else:
        with pytest.raises(DxsegError, match=r"three dimensions|NIfTI-1 or -2"):
            read_nifti(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_a_volume_or_an_error_that_names_the_file(tmp_path: Path, data) -> None:
    path = write(tmp_path / "a.nii", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    stored = header_bytes(path)
    for _ in range(data.draw(st.integers(1, 4))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(stored[: data.draw(st.integers(1, len(stored)))])
    try:
        volume = read_nifti(path)
    except DxsegError as error:
        told = str(error)
    else:
        told = str(path)
        assert volume.voxels.ndim == 3
        assert np.isfinite(volume.affine).all()
    assert str(path) in told


def test_a_unit_that_does_not_exist_is_told(tmp_path):
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE)
    image.header["xyzt_units"] = 7
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(DxsegError, match=r"a\.nii: code 7 of a unit .* correct the header"):
        read_nifti(tmp_path / "a.nii")
