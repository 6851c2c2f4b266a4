"""DICOM images come in as they are meant to be seen, or are refused without a word of the file."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import convert_color_space
from pydicom.pixels.utils import pack_bits
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dxseg.data.readers.budget import TooLargeError, decode_budget
from dxseg.data.readers.images import image_size, read_image
from dxseg.data.readers.masks import read_mask
from dxseg.errors import DxsegError

Make = Callable[..., Dataset]

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (65, 71), dtype=np.uint8)
RGB = RNG.integers(0, 256, (65, 71, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 4096, (65, 71), dtype=np.uint16)

BUNDLED = Path(pydicom.data.__file__).parent
FILES = sorted(
    path
    for path in BUNDLED.rglob("*")
    # Of the 36 images of TINY_ALPHA, which are alike, one is enough.
    if path.suffix in ("", ".dcm") and path.is_file() and not path.match("IM0000[0-9A-Z][1-9A-Z]")
)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Dataset], Any]:
    def saved(ds: Dataset) -> Any:
        path = tmp_path / "x.dcm"
        ds.save_as(path, enforce_file_format=True)
        pixels = read_image(path)
        assert image_size(path) == pixels.shape[:2]
        return pixels

    return saved


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(BUNDLED)))
def test_files_that_pydicom_ships_are_read_or_refused(path: Path) -> None:
    try:
        pixels = read_image(path)
    except DxsegError:
        return
    assert pixels.dtype in (np.uint8, np.uint16)
    assert pixels.ndim == 3
    assert pixels.shape[2] in (1, 3)
    ds = pydicom.dcmread(path)
    assert pixels.shape[:2] == (ds.Rows, ds.Columns)
    # Small crops of the bundled studies may lie outside their window.
    assert pixels.min() < pixels.max() or pixels.size <= 256


def test_most_bundled_images_are_read() -> None:
    def readable(path: Path) -> bool:
        try:
            read_image(path)
        except DxsegError:
            return False
        return True

    assert sum(readable(path) for path in (BUNDLED / "test_files").glob("*.dcm")) >= 45


@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
def test_eight_bit_without_window_is_left_as_it_is(image: Make, read: Any, pixels: Any) -> None:
    assert np.array_equal(read(image(pixels)).squeeze(), pixels)


def test_monochrome1_is_inverted(image: Make, read: Any) -> None:
    pixels = read(image(GRAY, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(pixels[:, :, 0], 255 - GRAY)


def test_twelve_bit_without_window_fills_sixteen(image: Make, read: Any) -> None:
    pixels = read(image(DEEP, BitsStored=12, HighBit=11))
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels[:, :, 0], np.rint(DEEP * (65535 / 4095)))


def test_signed_values_without_window_keep_their_order(image: Make, read: Any) -> None:
    stored = np.array([[-32768, -1], [0, 32767]], dtype=np.int16)
    assert read(image(stored))[:, :, 0].tolist() == [[0, 32767], [32768, 65535]]


def test_a_window_after_rescaling_follows_the_standard(image: Make, read: Any) -> None:
    ds = image(
        DEEP,
        RescaleSlope=2,
        RescaleIntercept=-1024,
        WindowCenter=[40, 500],
        WindowWidth=[400, 1500],
    )
    # PS3.3 C.11.2.1.2.1, of the first window.
    units = 2.0 * DEEP - 1024
    expected = ((units - (40 - 0.5)) / (400 - 1) + 0.5).clip(0, 1) * 65535
    assert np.abs(read(ds)[:, :, 0] - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_other_window_functions(image: Make, read: Any, function: str) -> None:
    ds = image(GRAY, WindowCenter=100, WindowWidth=50, VOILUTFunction=function)
    shifted = (GRAY.astype(float) - 100) / 50
    exact, sigmoid = (shifted + 0.5).clip(0, 1), 1 / (1 + np.exp(-4 * shifted))
    expected = 255 * (exact if function == "LINEAR_EXACT" else sigmoid)
    assert np.abs(read(ds)[:, :, 0] - expected).max() <= 0.5 + 1e-6


def test_a_narrow_window_is_one_where_the_standard_has_it(image: Make, read: Any) -> None:
    steps = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)
    exact = image(steps, WindowCenter=2, WindowWidth=0.5, VOILUTFunction="LINEAR_EXACT")
    assert read(exact)[:, :, 0].tolist() == [[0, 0, 128], [255, 255, 255]]
    assert np.array_equal(read(image(steps, WindowCenter=2, WindowWidth=0.5))[:, :, 0], steps)


@pytest.mark.parametrize("slope", [-2, -0.5])
def test_a_falling_rescale_keeps_what_is_bright(image: Make, read: Any, slope: float) -> None:
    ds = image(GRAY, RescaleSlope=slope, RescaleIntercept=100)
    assert np.array_equal(read(ds)[:, :, 0], 255 - GRAY)
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 100 + slope * 128, 50, "LINEAR_EXACT"
    shares = ((slope * (GRAY - 128.0)) / 50 + 0.5).clip(0, 1)
    assert np.abs(read(ds)[:, :, 0] - 255 * shares).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("width", [0, -5, "", float("nan")])
def test_a_window_of_no_width_counts_as_none(image: Make, read: Any, width: Any) -> None:
    ds = image(GRAY, WindowCenter=100)
    ds.add_new("WindowWidth", "FD" if width != "" else "DS", width)
    assert np.array_equal(read(ds)[:, :, 0], GRAY)


def test_a_voi_table_is_applied(image: Make, read: Any) -> None:
    table = Dataset()
    table.LUTDescriptor = [256, 0, 12]
    table.LUTData = [4095 - 16 * value for value in range(256)]
    table["LUTData"].VR = "US"
    expected = np.rint((4095 - 16 * GRAY.astype(float)) * (255 / 4095))
    assert np.array_equal(read(image(GRAY, VOILUTSequence=[table]))[:, :, 0], expected)


def test_a_modality_table_is_applied(image: Make, read: Any) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [256, 0, 16], "US"
    table.LUTData = [257 * (255 - value) for value in range(256)]
    table["LUTData"].VR = "US"
    assert np.array_equal(read(image(GRAY, ModalityLUTSequence=[table]))[:, :, 0], 255 - GRAY)


def test_palettes_become_colors(image: Make, read: Any) -> None:
    ds = image(GRAY, PhotometricInterpretation="PALETTE COLOR")
    tables = RNG.permuted(np.tile(np.arange(256, dtype=np.uint16), (3, 1)), axis=1)
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(ds, f"{name}PaletteColorLookupTableData", (table << 8).tobytes())
    assert np.array_equal(read(ds), tables[:, GRAY].transpose(1, 2, 0))


def test_ybr_becomes_rgb(image: Make, read: Any) -> None:
    pixels = read(image(RGB, PhotometricInterpretation="YBR_FULL"))
    assert np.array_equal(pixels, convert_color_space(RGB, "YBR_FULL", "RGB"))


def test_color_by_plane_equals_color_by_pixel(image: Make, read: Any) -> None:
    ds = image(RGB, PlanarConfiguration=1)
    ds.PixelData = RGB.transpose(2, 0, 1).tobytes() + b"\0"
    assert np.array_equal(read(ds), RGB)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("pixels", [GRAY, DEEP, RGB], ids=["gray", "deep", "rgb"])
def test_lossless_compression_changes_nothing(
    image: Make, read: Any, syntax: Any, pixels: Any
) -> None:
    plain = read(image(pixels))
    ds = image(pixels)
    ds.compress(syntax)
    assert np.array_equal(read(ds), plain)


def test_lossless_jpeg_changes_nothing(image: Make, read: Any) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    ds = image(DEEP, BitsStored=12, HighBit=11)
    plain = read(ds)
    ds.PixelData = encapsulate([imagecodecs.ljpeg_encode(DEEP, bitspersample=12)])
    ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    ds["PixelData"].VR = "OB"
    assert np.array_equal(read(ds), plain)


def test_lossy_jpeg_of_twelve_bit_is_read() -> None:
    files = [BUNDLED / "test_files" / name for name in ("JPGExtended.dcm", "JPEG2000.dcm")]
    extended, reference = (read_image(path).astype(float) for path in files)
    # The same picture under another lossy compression.
    assert np.corrcoef(extended.ravel(), reference.ravel())[0, 1] > 0.9


def test_without_its_decoder_the_extra_is_named(
    image: Make, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    ds = image(GRAY)
    ds.compress(JPEG2000Lossless)
    monkeypatch.setattr(get_decoder(JPEG2000Lossless), "_available", {})
    with pytest.raises(DxsegError, match=r"JPEG 2000.*pip install 'dxseg\[dicom\]'"):
        read(ds)


def test_a_mask_may_be_dicom(image: Make, tmp_path: Path) -> None:
    mask = (GRAY > 128).astype(np.uint8)
    path = tmp_path / "mask.dcm"
    image(mask * np.uint8(255)).save_as(path, enforce_file_format=True)
    assert np.array_equal(read_mask(path, 1), mask)
    bits = image(mask, BitsAllocated=1, BitsStored=1, HighBit=0)
    bits.PixelData = pack_bits(mask)
    bits.save_as(path, enforce_file_format=True)
    assert np.array_equal(read_mask(path, 1), mask)


def test_the_content_tells_dicom_without_a_suffix(image: Make, tmp_path: Path) -> None:
    for name in ("IM0001", "1.2.840.10008.7"):
        image(GRAY).save_as(tmp_path / name, enforce_file_format=True)
        assert np.array_equal(read_image(tmp_path / name)[:, :, 0], GRAY)


def absurd_size(ds: Dataset) -> None:
    ds.Rows = ds.Columns = 65535


def absurd_frames(ds: Dataset) -> None:
    ds.NumberOfFrames = 2**31 - 1


def several_frames(ds: Dataset) -> None:
    ds.NumberOfFrames, ds.PixelData = 2, ds.PixelData * 2


def negative_frames(ds: Dataset) -> None:
    ds.NumberOfFrames = -1


def no_size(ds: Dataset) -> None:
    del ds.Rows


def no_pixels(ds: Dataset) -> None:
    del ds.PixelData
    ds.SmallestImagePixelValue = 0
    ds.private_block(0x11, "filler", create=True).add_new(1, "OB", b"\0" * 6000)


def no_samples(ds: Dataset) -> None:
    ds.SamplesPerPixel = 0


def odd_bits(ds: Dataset) -> None:
    ds.BitsAllocated = 12


def more_bits_than_there_are(ds: Dataset) -> None:
    ds.BitsStored = 16


def unknown_colors(ds: Dataset) -> None:
    ds.PhotometricInterpretation = "CMYK"


def no_syntax(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    ds.PixelData = encapsulate([b"\0" * 100])


def float_pixels(ds: Dataset) -> None:
    del ds.PixelData
    ds.BitsAllocated = ds.BitsStored = 32
    ds.HighBit = 31
    ds.FloatPixelData = np.zeros(65 * 71, np.float32).tobytes()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (absurd_size, "claims 65535 x 65535 pixels"),
        (absurd_frames, "claims 2147483647 frame"),
        (several_frames, "2 frames; expected one image"),
        (negative_frames, "-1 frames"),
        (no_size, "no rows and columns"),
        (no_pixels, "no whole-number pixel data"),
        (no_samples, "0 sample"),
        (odd_bits, "12 bits per sample"),
        (more_bits_than_there_are, "16 of 8 bits"),
        (unknown_colors, "unknown color model"),
        (no_syntax, "transfer syntax"),
        (float_pixels, "no whole-number pixel data"),
    ],
)
def test_impossible_headers_are_refused(
    image: Make, read: Any, spoil: Callable[[Dataset], None], told: str
) -> None:
    ds = image(GRAY)
    spoil(ds)
    with pytest.raises(DxsegError, match=told):
        read(ds)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"DICM", "not a DICOM file"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 200, "not a DICOM file"),
        (b"\0" * 128 + b"DICM", "DICOM|no image"),
    ],
)
def test_what_is_no_dicom_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    for reading in (read_image, image_size):
        with pytest.raises(DxsegError, match=told):
            reading(path)


def test_a_codestream_of_another_size_is_not_decoded(image: Make, read: Any) -> None:
    for syntax in (JPEG2000Lossless, JPEGLSLossless):
        ds = image(GRAY)
        ds.compress(syntax)
        ds.Rows = 64
        with pytest.raises(DxsegError, match=r"\(65, 71\), in the header \(64, 71\)"):
            read(ds)


def contents(ds: Any) -> tuple[bytes, bytes]:
    """An object as a file: what is never deflated, and the data set."""
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    content = stream.getvalue()
    (length,) = struct.unpack_from("<I", content, 132 + 8)
    return content[: 132 + 12 + length], content[132 + 12 + length :]


def test_deflated_images_are_read(image: Make, tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    ds = image(GRAY)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
    assert np.array_equal(read_image(path)[:, :, 0], GRAY)
    assert image_size(path) == GRAY.shape


@pytest.mark.parametrize("place", ["header", "pixels"])
def test_a_deflate_bomb_costs_no_more_than_the_budget(
    image: Make, tmp_path: Path, place: str
) -> None:
    ds = image(GRAY)
    if place == "header":
        ds.add_new(0x00091001, "OB", bytes(2**26))
    _, plain = contents(ds)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    start, _ = contents(ds)
    padding = struct.pack("<HH2sxxI", 0x7FE1, 0x1001, b"OB", 2**26) + bytes(2**26)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path = tmp_path / "x.dcm"
    path.write_bytes(start + deflater.compress(plain + padding) + deflater.flush())
    assert path.stat().st_size < 2**20
    del plain, padding
    tracemalloc.start()
    if place == "header":
        for reading in (read_image, image_size):
            with decode_budget(2**20), pytest.raises(TooLargeError, match="inflates beyond"):
                reading(path)
    else:
        assert np.array_equal(read_image(path)[:, :, 0], GRAY), "what follows is not inflated"
        assert image_size(path) == GRAY.shape
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25.5


@pytest.fixture(scope="module")
def sound(image: Make, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    path = tmp_path_factory.mktemp("sound") / "x.dcm"
    ds = image(GRAY[:20, :20], PatientName="ZZPLANTED", WindowCenter=100, WindowWidth=50)
    contents = []
    for syntax in (None, RLELossless, JPEGLSLossless):
        if syntax is not None:
            ds.compress(syntax)
        ds.save_as(path, enforce_file_format=True)
        contents.append(path.read_bytes())
        if syntax is not None:
            ds.decompress()
    return contents


@settings(max_examples=100)
@given(data=st.data())
def test_damaged_files_raise_nothing_else(
    sound: list[bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    content = bytearray(sound[data.draw(st.integers(0, len(sound) - 1))])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path.write_bytes(content[:end])
    told = ""
    try:
        assert read_image(path).dtype in (np.uint8, np.uint16)
    except DxsegError as error:
        told = str(error)
    assert "ZZPLANTED" not in told
