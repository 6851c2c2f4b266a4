"""DICOM SEG: a mask as a segmentation object that refers to the images it was made from.

highdicom builds the object. Patient and study are those of the images, as DICOM requires, so of all
files that dxseg writes **only a SEG identifies a patient**. Attributes that viewers show and
archives search say that it is research, not a finding.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from copy import copy
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.readers.dicom.elements import read_text
from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.data.readers.dicom.objects import open_object, pixel_layout
from dxseg.data.readers.dicom.series import Stack
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files.table import model_name
from dxseg.inference.model_info import DXSEG_VERSION, ModelInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset, FileDataset

STATEMENT = "Research only, not for clinical use"

# Of type 2 (PS3.3): required, may be empty. Exports omit them all the same.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_SEXES = ("M", "F", "O")
_LONG_STRING = 64


def require_highdicom() -> None:
    """Check that DICOM SEG can be written here.

    Raises:
        UsageError: highdicom is not installed.
    """
    if find_spec("highdicom") is None:
        raise UsageError(
            "DICOM SEG needs highdicom, which is not installed; pip install 'dxseg[dicom]'"
        )


def image_segmentation(path: Path, mask: NDArray[np.uint8], info: ModelInfo) -> bytes:
    """Make the SEG of a single image.

    Args:
        path: The DICOM file that was predicted.
        mask: (H, W) label map of its size.
        info: Names the classes and the model.

    Returns:
        The file's content.

    Raises:
        DxsegError: The image lacks attributes that a SEG must repeat.
    """
    return _encode([open_object(path)], mask[None], info, path)


def series_segmentation(stack: Stack, mask: NDArray[np.uint8], info: ModelInfo) -> bytes:
    """Make the SEG of a series; it refers to every slice, and has frames of those with a lesion.

    Args:
        stack: The slices that were predicted.
        mask: (column, row, slice) label map on the grid of the stack.
        info: Names the classes and the model.

    Returns:
        The file's content.

    Raises:
        DxsegError: A slice is missing, or lacks attributes that a SEG must repeat.
    """
    planes = mask.transpose(2, 1, 0)
    paths = list(dict.fromkeys(part.header.path for part in stack.slices))
    if len(paths) == 1:
        # Frames of one object: in its own order.
        planes = planes[np.argsort([part.plane.frame for part in stack.slices])]
    with alias_in_errors(paths[0], stack.name):
        return _encode([open_object(path) for path in paths], planes, info, paths[0])


def _encode(
    sources: Sequence[FileDataset], planes: NDArray[np.uint8], info: ModelInfo, path: Path
) -> bytes:
    """Build the object; highdicom's own messages quote values, so they are not repeated."""
    require_highdicom()
    layout = pixel_layout(sources[0], path)
    if not all(read_text(ds, keyword) for ds in sources for keyword in _UIDS):
        raise DxsegError(
            f"{path}: has no UIDs of object, series and study, which a SEG refers to; export it "
            "again"
        )
    if planes.shape[1:] != (layout.rows, layout.columns):
        raise DxsegError(
            f"{path}: does not have the mask's size; it has changed since it was predicted"
        )
    with _quiet():
        try:
            return _saved(_build([_completed(ds) for ds in sources], planes, info), sources[0])
        except Exception as error:  # noqa: BLE001 - its text quotes values of the header
            raise DxsegError(
                f"{path}: highdicom refuses its header ({type(error).__name__}); expected one "
                "that a SEG may repeat; correct the header, or use the mask without a SEG"
            ) from None


def _saved(seg: Any, source: Dataset) -> bytes:
    if "FrameOfReferenceUID" not in seg:
        # Of type 2C (PS3.3 C.7.6.1): required where there is no position.
        seg.PatientOrientation = source.get("PatientOrientation", "")
    stream = io.BytesIO()
    seg.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _build(sources: Sequence[Dataset], planes: NDArray[np.uint8], info: ModelInfo) -> Any:
    from highdicom.seg import Segmentation
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    return Segmentation(
        sources,
        np.ascontiguousarray(planes),
        # The type that every viewer supports.
        "BINARY",
        [_segment(number, name, info) for number, name in enumerate(info.mask_classes, 1)],
        series_instance_uid=generate_uid(prefix=None),
        series_number=1,
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer="dxseg",
        manufacturer_model_name="dxseg",
        software_versions=DXSEG_VERSION,
        device_serial_number=model_name(info),
        content_label="RESEARCH",
        content_description=STATEMENT,
        series_description=f"dxseg segmentation. {STATEMENT}",
        content_qualification="RESEARCH",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )


def _segment(number: int, name: str, info: ModelInfo) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    algorithm = AlgorithmIdentificationSequence(
        name="dxseg",
        version=DXSEG_VERSION,
        family=codes.DCM.ArtificialIntelligence,
        parameters={"model_sha256": info.weights_sha256, "purpose": STATEMENT},
    )
    lesion = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion
    organ = codes.SCT.AnatomicalStructure, codes.SCT.Organ
    return SegmentDescription(
        number,
        name[:_LONG_STRING],
        *(lesion if name in info.lesion_names else organ),
        "AUTOMATIC",
        algorithm,
    )


def _completed(ds: Dataset) -> Dataset:
    """Copy a header; elements that a SEG must have are empty where the source has none.

    Text is repeated in UTF-8: highdicom refuses sources whose character set is empty, unknown or
    used against the rules, of which there are many.
    """
    completed = copy(ds)
    completed.decode()
    completed.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _MAY_BE_EMPTY:
        if keyword not in completed:
            setattr(completed, keyword, "")
    if read_text(completed, "PatientSex") not in _SEXES:
        completed.PatientSex = ""
    return completed


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence logs and warnings of highdicom, which may quote the patient."""
    logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
