"""Modality LUT, rescaling and windows (VOI) of a frame, by pydicom; what they are is read here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.dicom.elements import functional_group, read_floats, read_items, read_text
from dxseg.data.readers.dicom.objects import PixelLayout

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

_FAR = 1e12


def frame_context(ds: FileDataset, index: int, layout: PixelLayout) -> Dataset:
    """Collect the elements for rescaling and windows; multi-frame objects have them per frame."""
    from pydicom.dataset import Dataset

    context = Dataset()
    context.PhotometricInterpretation = layout.photometric
    context.PixelRepresentation = int(layout.signed)
    context.BitsStored = layout.bits_stored
    rescaling = functional_group(ds, index, "PixelValueTransformationSequence") or ds
    values = [read_floats(rescaling, name, 1) for name in ("RescaleSlope", "RescaleIntercept")]
    if values[0] and values[1] and values[0][0]:
        context.RescaleSlope, context.RescaleIntercept = values[0][0], values[1][0]
    window = functional_group(ds, index, "FrameVOILUTSequence") or ds
    centers, widths = (_first(window, name) for name in ("WindowCenter", "WindowWidth"))
    if centers is not None and widths is not None:
        context.WindowCenter, context.WindowWidth = centers, widths
        context.VOILUTFunction = read_text(window, "VOILUTFunction") or "LINEAR"
    for source, name in ((ds, "ModalityLUTSequence"), (window, "VOILUTSequence")):
        if found := read_items(source, name):
            context.add_new(name, "SQ", found[:1])
    return context


def _first(ds: Dataset, keyword: str) -> float | None:
    """Read the first of one or several numbers."""
    try:
        value = np.atleast_1d(np.array(ds.get(keyword), dtype=np.float64))[0]
    except Exception:  # noqa: BLE001 - a damaged element raises when it is read
        return None
    return float(value) if np.isfinite(value) else None


def apply_modality(stored: npt.NDArray[Any], context: Dataset) -> npt.NDArray[Any]:
    """Apply the modality LUT or the rescaling to stored values."""
    from pydicom.pixels.processing import apply_modality_lut

    return apply_modality_lut(stored, context)


def apply_window(
    values: npt.NDArray[Any], context: Dataset
) -> tuple[npt.NDArray[Any], float, float]:
    """Apply the VOI LUT or the first window; also return the range of the results."""
    from pydicom.pixels.processing import apply_voi, apply_windowing

    if "VOILUTSequence" in context:
        bits = int(context.VOILUTSequence[0].LUTDescriptor[2])
        return apply_voi(np.rint(values).astype(np.int64), context), 0, 2**bits - 1
    if not _has_window(context):
        context.WindowCenter, context.WindowWidth = 0, 2 * _FAR
        context.VOILUTFunction = "LINEAR_EXACT"
        low, high = sorted(_range(context, apply_windowing))
        return values, low, high
    low, high = _range(context, apply_windowing)
    with np.errstate(over="ignore"):
        windowed = apply_windowing(values, context)
    return windowed, low, high


def first_window(context: Dataset) -> tuple[float, float] | None:
    """Return the lowest and highest value of the first window; None without one."""
    if not _has_window(context):
        return None
    center, width = float(context.WindowCenter), float(context.WindowWidth)
    return center - width / 2, center + width / 2


def _has_window(context: Dataset) -> bool:
    """Whether there is a window as wide as PS3.3 C.11.2.1.2 requires; many exports write 0."""
    if "WindowWidth" not in context:
        return False
    width = float(context.WindowWidth)
    return width >= 1 if context.VOILUTFunction == "LINEAR" else width > 0


def _range(context: Dataset, apply_windowing: Any) -> tuple[float, float]:
    """Find the output range of a window from very low and very high values."""
    with np.errstate(over="ignore"):
        low, high = apply_windowing(np.array([-2 * _FAR, 2 * _FAR]), context)
    return float(low), float(high)
