"""The command `dxseg import FOLDER`, which names the importer that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dxseg.commands.options import StrPath

if TYPE_CHECKING:
    from dxseg.data.importers.layout import Layout
else:
    Layout = Any


def find_importer(source: StrPath) -> Layout:
    """Import a dataset from another layout; with a folder alone, say which importer fits.

    Shows what the importer would make of the folder, and the full command. Nothing is written.

    Args:
        source: A folder of images, volumes or DICOM files, or a table of images.

    Raises:
        DxsegError: There is no such folder, or no importer fits.
    """
    from dxseg.data.importers.layout import find_layout

    return find_layout(source)
