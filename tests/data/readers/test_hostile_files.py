"""Hostile image files: only our own error may come out, soon and without eating the memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dxseg.data.readers.images import image_size, read_image
from dxseg.data.readers.masks import inspect_mask
from dxseg.errors import DxsegError

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (17, 23), dtype=np.uint8)
RGB = RNG.integers(0, 256, (17, 23, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (17, 23), dtype=np.uint16)


def encoded(array: Any, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def tiff(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def palette() -> Image.Image:
    image = Image.fromarray(GRAY % 3, mode="P")
    image.putpalette([0, 0, 0, 200, 10, 30, 7, 8, 9])
    return image


FILES = {
    "gray png": encoded(GRAY, "png"),
    "deep png": encoded(DEEP, "png"),
    "palette png": encoded(palette(), "png"),
    "1-bit png": encoded(GRAY > 127, "png"),
    "rgb jpeg": encoded(RGB, "jpeg"),
    "progressive jpeg": encoded(GRAY, "jpeg", progressive=True),
    "rgb bmp": encoded(RGB, "bmp"),
    "palette bmp": encoded(palette(), "bmp"),
    "plain tiff": tiff(RGB),
    "zlib tiff": tiff(DEEP, compression="zlib", predictor=True),
    "lzw tiff": encoded(GRAY, "tiff", compression="tiff_lzw"),
    "jpeg tiff": encoded(RGB, "tiff", compression="jpeg"),
    "pages tiff": tiff(np.stack([GRAY] * 3), photometric="minisblack", byteorder=">"),
    "tiled tiff": tiff(np.zeros((32, 32), np.uint8), tile=(16, 16)),
    "big tiff": tiff(GRAY, bigtiff=True),
}


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A whole file with bytes changed, cut, doubled, moved, or spliced with another file."""
    content = bytearray(FILES[draw(st.sampled_from(sorted(FILES)))])
    for _ in range(draw(st.integers(1, 4))):
        # Headers stand at the start, or at the end in TIFF.
        near = st.integers(0, min(len(content), 200) - 1) if content else st.just(0)
        at = draw(near | st.integers(0, max(len(content) - 1, 0)))
        at = draw(st.sampled_from([at, max(len(content) - 1 - at, 0)]))
        length = draw(st.integers(0, 40))
        way = draw(st.sampled_from(["change", "cut", "remove", "double", "splice", "extreme"]))
        if way == "change":
            content[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif way == "cut":
            del content[at:]
        elif way == "remove":
            del content[at : at + length]
        elif way == "double":
            content[at:at] = content[at : at + length]
        elif way == "splice":
            content[at:] = FILES[draw(st.sampled_from(sorted(FILES)))][at:]
        else:
            extremes = st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
            content[at : at + 4] = draw(extremes)
    return bytes(content)


@given(content=damaged(), suffix=st.sampled_from([".png", ".tif"]))
@settings(max_examples=250)
def test_damaged_files_give_pixels_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(content)
    # Any other error than ours fails the test.
    with suppress(DxsegError):
        assert len(image_size(path)) == 2
    with suppress(DxsegError):
        pixels = read_image(path)
        assert pixels.ndim == 3
        assert pixels.dtype in (np.uint8, np.uint16)
    with suppress(DxsegError):
        assert inspect_mask(path, 2).mask.max(initial=0) <= 2


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_beginning_of_a_file_is_refused_or_whole(tmp_path: Path, name: str) -> None:
    whole = FILES[name]
    path = tmp_path / "x.png"
    path.write_bytes(whole)
    expected = read_image(path)
    for length in sorted({*range(0, 64, 7), *range(64, len(whole), max(len(whole) // 12, 1))}):
        path.write_bytes(whole[:length])
        # What is missing may be no part of the pixels; then they must all be right.
        with suppress(DxsegError):
            np.testing.assert_array_equal(read_image(path), expected)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, size: tuple[int, int] = (4, 4)) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def bomb_tiff(claim: bytes, data: bytes) -> bytes:
    """A TIFF of 10 x 10 pixels whose one compressed strip is replaced."""
    whole = bytearray(tiff(np.zeros((10, 10), np.uint8), compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(bytes(whole))) as file:
        tags = file.pages[0].tags
        for name, value in (("StripOffsets", len(whole)), ("StripByteCounts", len(data))):
            place = tags[name].valueoffset
            whole[place : place + 4] = struct.pack("<I", value)
        if claim:
            for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
                whole[tags[name].valueoffset : tags[name].valueoffset + len(claim)] = claim
    return bytes(whole) + data


def test_bombs_cost_neither_memory_nor_time(tmp_path: Path) -> None:
    zeros = zlib.compress(bytes(300_000_000), 9)
    pixels = chunk(b"IDAT", zlib.compress(bytes(20)))
    bombs = {
        "claim.png": png(pixels, size=(40_000, 40_000)),
        "text.png": png(chunk(b"zTXt", b"k\0\0" + zeros), pixels),
        "profile.png": png(chunk(b"iCCP", b"k\0\0" + zeros), pixels),
        "pixels.png": png(chunk(b"IDAT", zeros)),
        "strip.tif": bomb_tiff(b"", zeros),
        "claim.tif": bomb_tiff(struct.pack("<H", 65535), zeros),
    }
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for width in range(1200):
            writer.write(np.zeros((2, 2 + width % 2), np.uint8), contiguous=False)
    bombs["pages.tif"] = stream.getvalue()
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
    script = (
        "import resource, sys\n"
        "from dxseg.data.readers.images import read_image\n"
        "from dxseg.errors import DxsegError\n"
        "import tifffile, imagecodecs, scipy.ndimage\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        print(name.rsplit('/')[-1], read_image(name).size)\n"
        "    except DxsegError:\n"
        "        print(name.rsplit('/')[-1], 'refused')\n"
        "print(peak() - before)\n"
    )
    words = [sys.executable, "-c", script, *(str(tmp_path / name) for name in bombs)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    *told, megabytes = done.stdout.splitlines()
    assert len(told) == len(bombs)
    # Pixels beyond the sixteen that the header claims are passed over.
    assert [line for line in told if not line.endswith("refused")] == ["pixels.png 16"]
    assert int(megabytes) < 128


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DxsegError, match=r"pipe\.png.*not a file"):
        read_image(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(DxsegError, match=r"loop\.png.*cannot be read"):
        read_image(tmp_path / "loop.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with pytest.raises(DxsegError, match=r"zero\.png"):
        read_image(tmp_path / "zero.png")
