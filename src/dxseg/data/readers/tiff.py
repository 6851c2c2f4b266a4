"""Reading TIFF files of one image with channels, however these are stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.budget import check_size
from dxseg.data.readers.orientation import TAG, UPRIGHT, valid_orientation
from dxseg.errors import DxsegError

_PAGE_LIMIT = 1024


@dataclass(frozen=True)
class TiffLayout:
    """The only series of a file.

    Attributes:
        axes: "YX", and at most one more for the channels.
        height: Of the stored pixels.
        width: Likewise.
        page: Its first page (tifffile's).
    """

    axes: str
    height: int
    width: int
    page: Any

    @property
    def orientation(self) -> int:
        """The orientation tag, 1 to 8."""
        tag = self.page.tags.get(TAG)
        return UPRIGHT if tag is None else valid_orientation(tag.value)


def tiff_layout(stream: IO[bytes], path: Path) -> TiffLayout:
    """Read the layout of a file and check its size, before memory is allocated.

    Args:
        stream: The file; left at its start.
        path: The file named in errors.

    Raises:
        DxsegError: There are other axes than those of channels, or too many pages or pixels.
    """
    import tifffile

    with tifffile.TiffFile(stream) as tiff:
        # The time to find series grows with the square of the number of pages.
        if len(tiff.pages) > _PAGE_LIMIT:
            raise DxsegError(
                f"{path}: more than {_PAGE_LIMIT} pages; expected one image with channels; save a "
                "volume as one file per slice"
            )
        series = list(tiff.series)
        shape, axes, page = series[0].shape, series[0].axes, series[0].keyframe
        # Only channels are supported: samples (S), channels (C), unnamed pages (I, Q).
        known = len(series) == 1 and axes.strip("SCIQ") == "YX" and len(axes) in (2, 3)
        if not known:
            raise DxsegError(
                f"{path}: contains {len(series)} image(s), the first with axes {axes} and shape "
                f"{shape}; expected one image with channels; save a volume as one file per slice"
            )
        height, width = shape[axes.index("Y")], shape[axes.index("X")]
        channels = int(np.prod(shape)) // max(height * width, 1)
        check_size(path, height, width, channels * max(series[0].dtype.itemsize, 1))
    stream.seek(0)
    return TiffLayout(axes, int(height), int(width), page)


def read_tiff(stream: IO[bytes], layout: TiffLayout, path: Path) -> npt.NDArray[Any]:
    """Read the pixels (H, W, C) as stored.

    Args:
        stream: The file, at its start.
        layout: From `tiff_layout`.
        path: The file named in errors.

    Raises:
        DxsegError: Pages differ in size.
    """
    import tifffile

    with tifffile.TiffFile(stream) as tiff:
        array: npt.NDArray[Any] = tiff.series[0].asarray()
        array = array[:, :, None] if array.ndim == 2 else array
        if layout.axes[0] != "Y":
            array = np.moveaxis(array, 0, -1)
        if array.shape[:2] != (layout.height, layout.width):
            raise DxsegError(f"{path}: its pages differ in size; export it again")
    return array
