"""Images come in with every value they hold, or are refused."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.ndimage import gaussian_filter

from dxseg.data.readers.images import image_size, read_image, to_channels
from dxseg.data.readers.masks import read_mask
from dxseg.data.readers.raster import decode_raster
from dxseg.errors import DxsegError

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (17, 23), dtype=np.uint8)
RGB = RNG.integers(0, 256, (17, 23, 3), dtype=np.uint8)
BITS = RNG.random((17, 23)) > 0.5
DEEP = RNG.integers(0, 65536, (17, 23), dtype=np.uint16)


def save(path: Path, array: npt.NDArray[Any], **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF"])
@pytest.mark.parametrize("array", [GRAY, RGB], ids=["gray", "rgb"])
def test_lossless_files_give_back_their_values(
    tmp_path: Path, suffix: str, array: npt.NDArray[Any]
) -> None:
    path = save(tmp_path / f"x{suffix}", array, format=None if suffix != ".TIFF" else "tiff")
    read = read_image(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array.reshape(17, 23, -1))
    assert image_size(path) == (17, 23)


def test_jpeg_is_close_and_has_the_right_channels(tmp_path: Path) -> None:
    smooth = gaussian_filter(RNG.uniform(0, 255, (32, 40)), 4)
    smooth = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    read = read_image(save(tmp_path / "x.jpg", smooth, quality=95))
    assert read.shape == (32, 40, 1)
    assert np.abs(read[:, :, 0].astype(int) - smooth).max() < 10
    assert read_image(save(tmp_path / "y.jpeg", RGB)).shape == (17, 23, 3)


@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_16_bit_gray_png_keeps_all_bits(
    tmp_path_factory: pytest.TempPathFactory, array: npt.NDArray[np.uint16]
) -> None:
    path = save(tmp_path_factory.mktemp("x") / "x.png", array)
    read = read_image(path)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read[:, :, 0], array)


@pytest.mark.parametrize(("color", "samples", "kept"), [(2, 3, 3), (4, 2, 1), (6, 4, 3)])
def test_16_bit_color_png_keeps_all_bits(
    tmp_path: Path, color: int, samples: int, kept: int
) -> None:
    array = RNG.integers(0, 65536, (5, 7, samples), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    (tmp_path / "x.png").write_bytes(png(7, 5, 16, color, rows))
    read = read_image(tmp_path / "x.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, array[:, :, :kept])
    alpha = decode_raster(tmp_path / "x.png").alpha
    if kept == samples:
        assert alpha is None
    else:
        assert alpha is not None
        np.testing.assert_array_equal(alpha, array[:, :, -1])  # all 16 bits of it


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped_not_blended(tmp_path: Path, mode: str) -> None:
    channels = len(mode)
    array = RNG.integers(0, 256, (17, 23, channels), dtype=np.uint8)
    Image.fromarray(array, mode=mode).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), array[:, :, :-1])


def test_palettes_become_their_colors(tmp_path: Path) -> None:
    image = Image.fromarray(GRAY % 3, mode="P")
    image.putpalette([0, 0, 0, 200, 10, 30, 7, 8, 9])
    image.save(tmp_path / "color.png")
    colors = np.array([[0, 0, 0], [200, 10, 30], [7, 8, 9]], dtype=np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "color.png"), colors[GRAY % 3])
    image.putpalette([9, 9, 9, 5, 5, 5, 0, 0, 0])
    image.save(tmp_path / "gray.png")
    expected = np.array([9, 5, 0], dtype=np.uint8)[GRAY % 3]
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png")[:, :, 0], expected)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_1_bit_images_hold_0_and_255(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(BITS).save(tmp_path / f"x{suffix}")
    read = read_image(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(read[:, :, 0], BITS * np.uint8(255))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", ["contig", "separate", "pages"])
def test_many_channel_tiff_in_every_layout(
    tmp_path: Path, layout: str, dtype: type, compression: str | None
) -> None:
    array = RNG.integers(0, 255, (17, 23, 5)).astype(dtype)
    planes = np.moveaxis(array, -1, 0)
    path = tmp_path / "x.tif"
    options: dict[str, Any] = {"photometric": "minisblack", "compression": compression}
    if layout == "contig":
        tifffile.imwrite(path, array, planarconfig="contig", **options)
    elif layout == "separate":
        tifffile.imwrite(path, planes, planarconfig="separate", **options)
    else:
        tifffile.imwrite(path, planes, **options)
    read = read_image(path)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array)
    assert image_size(path) == (17, 23)


def test_tiff_variants(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, DEEP, byteorder=">")
    np.testing.assert_array_equal(read_image(path)[:, :, 0], DEEP)
    tifffile.imwrite(path, GRAY, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(path)[:, :, 0], 255 - GRAY)
    tifffile.imwrite(path, DEEP.astype(np.int32))
    np.testing.assert_array_equal(read_image(path)[:, :, 0], DEEP)
    rgba = RNG.integers(0, 256, (17, 23, 4), dtype=np.uint8)
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_image(path), rgba[:, :, :3])
    Image.fromarray(GRAY).save(path, compression="tiff_lzw")
    np.testing.assert_array_equal(read_image(path)[:, :, 0], GRAY)


@pytest.mark.parametrize(
    "array",
    [
        GRAY.astype(np.float32) + 0.5,
        np.full((4, 5), np.nan, np.float32),
        GRAY / np.float32(-255),
        DEEP.astype(np.int32) - 70000,
        np.zeros((2, 3, 4, 5), "u1"),
    ],
)
def test_tiff_that_is_no_image_of_whole_numbers_is_refused(
    tmp_path: Path, array: npt.NDArray[Any]
) -> None:
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="minisblack")
    with pytest.raises(DxsegError, match=r"x\.tif.*expected"):
        read_image(tmp_path / "x.tif")


def test_floats_of_0_to_1_are_pictures_and_whole_floats_are_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, DEEP.astype(np.float64) / 65535, photometric="minisblack")
    np.testing.assert_array_equal(read_image(path)[:, :, 0], DEEP)
    for values in (GRAY, DEEP):
        tifffile.imwrite(path, values.astype(np.float32), photometric="minisblack")
        assert read_image(path).dtype == values.dtype
        np.testing.assert_array_equal(read_image(path)[:, :, 0], values)
    # A mask of 0.0 and 1.0 is a label map, one with values between is a soft map.
    labels = (GRAY > 100).astype(np.float32)
    tifffile.imwrite(path, labels, photometric="minisblack")
    np.testing.assert_array_equal(read_mask(path, 1), labels)
    tifffile.imwrite(path, GRAY.astype(np.float32) / 255, photometric="minisblack")
    with pytest.raises(DxsegError, match="between background and lesion"):
        read_mask(path, 1)


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    path = save(tmp_path / "x.jpg", GRAY, format="png")
    np.testing.assert_array_equal(read_image(path)[:, :, 0], GRAY)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_cut_files_are_refused_wherever_they_are_cut(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"whole{suffix}", RGB).read_bytes()
    path = tmp_path / f"cut{suffix}"
    # The last bytes may be padding that no decoder misses.
    for length in [0, 1, 5, 9, 30, len(whole) // 2, len(whole) - 40]:
        path.write_bytes(whole[:length])
        with pytest.raises(DxsegError, match=f"cut{suffix}"):
            read_image(path)


@given(st.data())
def test_damaged_files_give_an_image_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["png", "jpeg", "bmp", "tiff"]))
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, format=kind)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content) - 1, 400)))] = data.draw(
            st.integers(0, 255)
        )
    path = tmp_path_factory.mktemp("x") / "x.png"
    path.write_bytes(bytes(content))
    # Any other error than ours fails the test.
    with suppress(DxsegError):
        assert read_image(path).ndim == 3


def test_huge_claims_are_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(40_000, 40_000, 8, 0, b""))
    for reader in (read_image, image_size, lambda file: read_mask(file, 1)):
        with pytest.raises(DxsegError, match="40000 x 40000"):
            reader(path)
    tiff = tmp_path / "bomb.tif"
    tifffile.imwrite(tiff, GRAY)
    content = bytearray(tiff.read_bytes())
    with tifffile.TiffFile(tiff) as file:
        for name in ("ImageWidth", "ImageLength"):
            tag = file.pages[0].tags[name]
            content[tag.valueoffset : tag.valueoffset + 4] = struct.pack("<I", 2**31 - 1)
    tiff.write_bytes(bytes(content))
    with pytest.raises(DxsegError, match=r"bomb\.tif"):
        read_image(tiff)


@pytest.mark.parametrize("name", ["x.svg", "x", "x.dcm", "absent.png"])
def test_unknown_and_absent_files_are_named(tmp_path: Path, name: str) -> None:
    if name != "absent.png":
        (tmp_path / name).write_bytes(b"GIF89a")
    with pytest.raises(DxsegError, match=name):
        read_image(tmp_path / name)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DxsegError, match="not an image"):
        read_image(tmp_path / "text.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DxsegError, match="cannot be read"):
        read_image(tmp_path / "folder.png")


@given(hnp.arrays(np.uint16, (3, 4, 1)))
def test_gray_to_rgb_and_back_is_the_identity(array: npt.NDArray[np.uint16]) -> None:
    rgb = to_channels(array, 3)
    assert rgb.shape == (3, 4, 3)
    np.testing.assert_array_equal(to_channels(rgb, 1), array)


def test_luminance_weights_and_refusals() -> None:
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    np.testing.assert_array_equal(to_channels(primaries, 1)[0, :, 0], [76, 150, 29])
    with pytest.raises(DxsegError, match="4 channel"):
        to_channels(np.zeros((2, 2, 4), dtype=np.uint8), 3)


@pytest.mark.parametrize(
    ("name", "array", "options"),
    [
        ("x.webp", RGB, {"lossless": True}),
        ("x.gif", GRAY, {}),
        ("x.pgm", GRAY, {}),
        ("x.ppm", RGB, {}),
        ("x.pgm", DEEP, {}),
    ],
)
def test_webp_gif_and_pnm_give_back_their_values(
    tmp_path: Path, name: str, array: npt.NDArray[Any], options: dict[str, Any]
) -> None:
    path = save(tmp_path / name, array, **options)
    np.testing.assert_array_equal(read_image(path), array.reshape(17, 23, -1))
    assert image_size(path) == (17, 23)


def test_jpeg_by_other_names(tmp_path: Path) -> None:
    expected = read_image(save(tmp_path / "a.jpg", RGB))
    for name in ("a.jfif", "a.jpe"):
        save(tmp_path / name, RGB, format="JPEG")
        np.testing.assert_array_equal(read_image(tmp_path / name), expected)


@pytest.mark.parametrize("name", ["x.gif", "x.webp"])
def test_moving_images_and_cut_ones_are_refused(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(RNG.integers(0, 256, (9, 9, 3), np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(DxsegError, match="several frames"):
        read_image(tmp_path / name)
    frames[0].save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DxsegError, match=name):
        read_image(tmp_path / name)
