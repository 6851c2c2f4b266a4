"""Headers of NRRD and MetaImage (MHA, MHD) as text, before SimpleITK may trust them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dxseg.data.readers.volume import VOXEL_LIMIT, times
from dxseg.errors import DxsegError

NRRD_SUFFIXES, META_SUFFIXES = (".nrrd", ".nhdr"), (".mha", ".mhd")

_HEADER_LIMIT = 2**18
"""Bytes; a segmentation of 3D Slicer has about 1000 for each segment."""
_META_LINE_LIMIT = 1000
"""MetaIO copies lines into arrays of a fixed length."""
_NRRD_LINE = re.compile(r"([^:#][^:]*):[ =]\s*(.*)")
_META_LINE = re.compile(r"([^=]+?)\s*=\s*(.*)")
_COUNT = re.compile(r"[1-9][0-9]{0,9}")
_GZIP = ("gzip", "gz")
_NRRD_ENCODINGS = ("raw", "ascii", "text", "txt", *_GZIP)


@dataclass(frozen=True)
class ItkHeader:
    """What a header claims.

    Attributes:
        shape: (I, J, K).
        data: The file that has the voxels.
        offset: Where in it they begin.
        is_compressed: Whether they are a stream of zlib or gzip.
        has_orientation: Whether the axes have directions in the patient.
    """

    shape: tuple[int, int, int]
    data: Path
    offset: int
    is_compressed: bool
    has_orientation: bool


def is_nrrd(path: Path) -> bool:
    """Whether the name of a file is that of NRRD; else it is MetaImage."""
    return path.name.lower().endswith(NRRD_SUFFIXES)


def read_header(path: Path) -> ItkHeader:
    """Read the header of a volume.

    Args:
        path: The file.

    Raises:
        DxsegError: It is absent or no header; has not three dimensions; claims too much; repeats a
            field; or names voxels in another folder or an encoding that is not read.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(_HEADER_LIMIT)
    except OSError as error:
        raise DxsegError(f"{path}: cannot be read ({error.strerror}); expected a volume") from error
    if is_nrrd(path):
        return _nrrd_header(text, path)
    return _meta_header(text, path)


def _nrrd_header(text: bytes, path: Path) -> ItkHeader:
    if not text.startswith(b"NRRD000"):
        raise _no_header(path)
    end = re.search(rb"\r?\n\r?\n", text)
    fields = _fields(text[: end.start()] if end else text, _NRRD_LINE, _HEADER_LIMIT, path)
    encoding = fields.get("encoding", "").lower()
    skips = {"line skip", "lineskip", "byte skip", "byteskip"} & fields.keys()
    if encoding not in _NRRD_ENCODINGS or (encoding in _GZIP and skips):
        raise DxsegError(
            f"{path}: encoding {encoding!r}{' with ' + min(skips) if skips else ''}; expected "
            f"{', '.join(_NRRD_ENCODINGS)}; write it again"
        )
    name = fields.get("data file", fields.get("datafile"))
    if name is None and end is None:
        raise _no_header(path)
    return ItkHeader(
        _shape(fields.get("dimension", ""), fields.get("sizes", ""), path),
        path if name is None else _beside(path, name),
        end.end() if end and name is None else 0,
        encoding in _GZIP,
        "space" in fields,
    )


def _meta_header(text: bytes, path: Path) -> ItkHeader:
    # The last line of the header names the file of the voxels, which follow if it is LOCAL.
    end = re.search(rb"^[ \t]*ElementDataFile[ \t]*=[^\n]*\n?", text, re.MULTILINE)
    if end is None:
        raise _no_header(path)
    fields = _fields(text[: end.end()], _META_LINE, _META_LINE_LIMIT, path)
    name = fields["elementdatafile"]
    is_local = name.lower() == "local"
    header = ItkHeader(
        _shape(fields.get("ndims", ""), fields.get("dimsize", ""), path),
        path if is_local else _beside(path, name),
        end.end() if is_local else 0,
        fields.get("compresseddata", "").lower() in ("true", "1"),
        True,
    )
    stated, held = fields.get("compresseddatasize", ""), header.data.stat().st_size
    if header.is_compressed and not (stated.isdecimal() and 0 < int(stated) <= held):
        raise DxsegError(
            f"{path}: CompressedDataSize {stated!r}, but {header.data.name} has {held} bytes; "
            "write it again"
        )
    return header


def _shape(dimension: str, sizes: str, path: Path) -> tuple[int, int, int]:
    words = sizes.split()
    if dimension != "3" or len(words) != 3 or not all(_COUNT.fullmatch(word) for word in words):
        raise DxsegError(
            f"{path}: dimension {dimension!r}, sizes {sizes!r}; expected three dimensions above 0; "
            "split other files into one volume each"
        )
    first, second, third = (int(word) for word in words)
    if first * second * third > VOXEL_LIMIT:
        raise DxsegError(
            f"{path}: claims {times((first, second, third))} voxels; expected at most "
            f"{VOXEL_LIMIT} in all; crop or resample it"
        )
    return first, second, third


def _beside(path: Path, name: str) -> Path:
    """The file of voxels that a header names, which may not be in another folder."""
    data = path.parent / name
    try:
        inside = data.resolve().parent.is_relative_to(path.parent.resolve()) and data.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, NUL, links in a circle
        inside = False
    if not inside:
        raise DxsegError(
            f"{path}: its voxels are in {name[:200]!r}; expected one file in the same folder; copy "
            "it there, or write the volume as one file (.nrrd, .mha)"
        )
    return data


def _fields(header: bytes, line: re.Pattern[str], limit: int, path: Path) -> dict[str, str]:
    """Read the fields of a header whose lines have at most `limit` characters."""
    fields: dict[str, str] = {}
    for row in header.decode("latin-1").splitlines():
        match = line.fullmatch(row.strip()) if len(row) <= limit else None
        if len(row) > limit or (match and match[1].lower() in fields):
            raise DxsegError(
                f"{path}: a line of its header is repeated or longer than {limit} "
                f"characters ({row[:60]!r}); write it again without"
            )
        if match:
            fields[match[1].lower()] = match[2].strip()
    return fields


def _no_header(path: Path) -> DxsegError:
    return DxsegError(
        f"{path}: no header of {'NRRD' if is_nrrd(path) else 'MetaImage'} in its first "
        f"{_HEADER_LIMIT} bytes; expected a complete file; copy or export it again"
    )
