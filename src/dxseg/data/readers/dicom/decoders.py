"""The choice of pydicom's decoders, and a plug-in for lossless and 12-bit JPEG.

Own code, because pydicom has no decoder of these two without GDCM, which ends the process on some
damaged files, or libjpeg under the GPL. imagecodecs, which TIFF needs anyway, decodes both.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import Decoder, DecodeRunner

_OURS = "imagecodecs"
_PREFERRED = ("pydicom", "pylibjpeg", "pyjpegls", _OURS, "pillow", "gdcm")
_registering = threading.Lock()

# Names that pydicom requires of a plug-in.
DECODER_DEPENDENCIES = dict.fromkeys(
    (JPEGLossless, JPEGLosslessSV1, JPEGExtended12Bit), ("imagecodecs",)
)


def is_available(syntax: str) -> bool:
    """Whether this plug-in decodes a transfer syntax."""
    return syntax in DECODER_DEPENDENCIES


def decode_frame(code: bytes, runner: DecodeRunner) -> bytes:
    """Decode a frame for pydicom.

    Args:
        code: One JPEG.
        runner: Values of the header.

    Returns:
        Little-endian samples of the number of bits allocated in the header.
    """
    import imagecodecs

    extended = runner.transfer_syntax == JPEGExtended12Bit
    if extended and runner.samples_per_pixel != 1:
        raise ValueError("color of more than 8 bit")
    array = imagecodecs.jpeg8_decode(code) if extended else imagecodecs.jpegsof3_decode(code)
    samples: Any = np.asarray(array).astype(f"<u{runner.bits_allocated // 8}", casting="safe")
    decoded: bytes = samples.tobytes()
    return decoded


def choose_decoder(syntax: str) -> tuple[Decoder, str]:
    """Find pydicom's decoder of a transfer syntax and the plug-in to use with it.

    Args:
        syntax: UID of the transfer syntax.

    Returns:
        The decoder, which may have no plug-in (`is_available`), and the plug-in's name; "" if none
        is needed.

    Raises:
        NotImplementedError: The syntax is not for images.
    """
    decoder = get_decoder(UID(syntax))
    if decoder.UID in DECODER_DEPENDENCIES:
        with _registering:
            if _OURS not in decoder.available_plugins:
                decoder.add_plugin(_OURS, (__name__, decode_frame.__name__))
    usable = decoder.available_plugins if decoder.UID.is_encapsulated else ()
    return decoder, next((name for name in _PREFERRED if name in usable), "")
