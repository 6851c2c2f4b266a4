"""Nothing that a file, its path or the table says of a patient leaves the export."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.datadict import DicomDictionary, dictionary_VM, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_phantom import SQUARE, place, plain_segmentation, structure_set
from dxseg.commands.import_dicom import import_dicom
from dxseg.errors import DxsegError

Make = Callable[..., Any]

TEXT = "ZZPLANTED"
ROOT = "1.2.826.0.1.77777777."
PLANTED = {
    **dict.fromkeys(("PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE"), TEXT),
    "CS": TEXT,
    "DA": "19770707",
    "TM": "070707.777777",
    "DT": "19770707070707.777777",
    "AS": "077Y",
    "UR": f"http://{TEXT.lower()}",
}
TRACES = [TEXT.lower(), "zzplanted", ROOT, "1977", "070707", "077y"]
KEY = "5a" * 32
"""A fixed key: pseudonyms of a random one hold "1977" by chance, once in some hundred runs."""
# What decides how pixels are read.
_STRUCTURE = ("Modality", "PhotometricInterpretation", "ImageType", "BurnedInAnnotation")


@functools.cache
def everything() -> Dataset:
    """A trace in every attribute that may hold text, a date or a UID."""
    ds = Dataset()
    for tag in DicomDictionary:
        keyword, vr = keyword_for_tag(tag), dictionary_VR(tag)
        structural = keyword in _STRUCTURE or tag >> 16 in (0x0000, 0x0002, 0x0004, 0x0028)
        if not keyword or structural or dictionary_VM(tag).startswith(("2", "3")):
            continue
        if vr in PLANTED:
            ds.add_new(tag, vr, PLANTED[vr])
        elif vr == "UI" and not keyword.endswith("ClassUID"):
            ds.add_new(tag, vr, f"{ROOT}1")
    for group in (0x0009, 0x0029, 0x7FE1):
        block = ds.private_block(group, TEXT, create=True)
        block.add_new(1, "LO", TEXT)
        block.add_new(2, "UN", TEXT.encode())
    return ds


def plant(ds: Dataset, number: int) -> Dataset:
    """Write a trace wherever the object has none of what it needs."""
    for element in everything():
        if element.tag not in ds:
            ds[element.tag] = element
    ds.PatientName, ds.StudyDate = f"{TEXT}^Dr {number}", PLANTED["DA"]
    ds.PatientID = f"{TEXT}{number % 2}"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if not getattr(ds, keyword).startswith(ROOT):
            setattr(ds, keyword, ROOT + getattr(ds, keyword)[-20:].lstrip(".0"))
    inner = Dataset()
    inner.PatientID, inner.PatientName, inner.RequestedProcedureDescription = TEXT, TEXT, TEXT
    ds.OtherPatientIDsSequence, ds.RequestAttributesSequence = [inner], [inner]
    return ds


@pytest.fixture(scope="module")
def export(image: Make, series: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, series good and bad, masks good and bad, and what is no image, all planted."""
    rng = np.random.default_rng(0)
    pictures = [image(rng.integers(0, 256, (12, 9), dtype=np.uint8)) for _ in range(4)]
    pictures[0].BurnedInAnnotation = "YES"
    phantom = rng.integers(-1000, 1000, (6, 9, 11))
    good, tilted, spoiled = (series(phantom) for _ in range(3))
    for index, ds in enumerate(tilted):
        ds.ImagePositionPatient = [0, index, 2 * index]
    spoiled[3].Rows = 4000
    for objects in (pictures, good, tilted, spoiled):
        for number, ds in enumerate(objects):
            plant(ds, number if objects is pictures else 1)
    foreign = image(rng.integers(0, 256, (12, 9), dtype=np.uint8), Modality=TEXT)
    text_only = image(rng.integers(0, 256, (12, 9), dtype=np.uint8))
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(text_only, keyword)
    masks = [
        structure_set(good, [place(good[2], SQUARE)]),
        structure_set(good, [place(good[2], SQUARE, lift=1.0)]),
        plain_segmentation(pictures[1], np.eye(12, 9, dtype=np.uint8)),
        plain_segmentation(pictures[2], np.eye(5, dtype=np.uint8)),
    ]
    for ds in masks[:2]:
        ds.StructureSetROISequence[0].ROIName = TEXT
    for ds in masks[2:]:
        ds.SegmentSequence[0].SegmentLabel = TEXT
    rest = [foreign, text_only, *masks]
    folder = tmp_path_factory.mktemp("export")
    for number, ds in enumerate([*pictures, *good, *tilted, *spoiled, *rest]):
        if ds in rest:
            plant(ds, number)
        place_of = folder / f"{TEXT}_19770707_{number % 3}"
        place_of.mkdir(parents=True, exist_ok=True)
        ds.save_as(place_of / f"{TEXT}^{number}.dcm", enforce_file_format=True)
    (folder / f"{TEXT}.txt").write_text(TEXT)
    whole = (folder / f"{TEXT}_19770707_0" / f"{TEXT}^0.dcm").read_bytes()
    (folder / f"{TEXT}.dcm").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(
        f"patient,accession,label,remark\n{TEXT}1,,benign,{TEXT}\n{TEXT}77,{TEXT},malignant,x\n"
    )
    return path


def traces(content: bytes) -> list[str]:
    text = content.decode("latin-1").lower()
    return [trace for trace in TRACES if trace.lower() in text]


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    for base, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(base, name)
            relative = str(path.relative_to(folder))
            yield relative, relative.encode() + (path.read_bytes() if path.is_file() else b"")


def test_the_traces_are_in_the_export(export: Path) -> None:
    found = {trace for _, content in written(export) for trace in traces(content)}
    assert found == set(TRACES), "or the other tests would prove nothing"


@pytest.mark.parametrize("modality", ["US", "CT", "other"])
def test_no_trace_reaches_the_dataset_or_the_terminal(
    cli: Callable[..., Any],
    export: Path,
    labels: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    modality: str,
) -> None:
    (tmp_path / "data.key").write_text(KEY)
    words = ["import", "dicom", export, tmp_path / "data", "--modality", modality]
    result = cli(*words, "--labels", labels)
    assert result.exit_code in (0, 1), result.output  # 1 where damaged objects are images
    assert {name for name, content in written(tmp_path / "data") if traces(content)} == set()
    assert traces((tmp_path / "data.key").read_bytes()) == []
    printed = "".join(capfd.readouterr())
    told = "\n".join(str(warning.message) for warning in recwarn)
    assert traces(f"{result.output}{printed}{caplog.text}{told}".encode()) == []
    assert "files skipped" in result.output or "left out" in result.output


def test_no_trace_is_in_the_report_or_in_errors(
    export: Path, labels: Path, tmp_path: Path, image: Make
) -> None:
    (tmp_path / "data.key").write_text(KEY)
    report = import_dicom(export, tmp_path / "data", modalities=["CT"], labels=labels)
    assert traces(report.model_dump_json().encode()) == []
    assert len(report.skipped) >= 5
    with pytest.raises(DxsegError) as several:
        import_dicom(export, tmp_path / "other")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / f"{TEXT}.dcm").write_bytes(b"\0" * 128 + b"DICM" + TEXT.encode() * 9)
    with pytest.raises(DxsegError) as none_left:
        import_dicom(broken, tmp_path / "other")
    labels.write_text(f"patient,label,slice_index\n{TEXT}1,benign,x\n")
    with pytest.raises(DxsegError) as bad_table:
        import_dicom(export, tmp_path / "other", modalities=["CT"], labels=labels)
    labels.write_text(f"patient,label\n{TEXT}1,benign\n{TEXT}1,malignant\n")
    with pytest.raises(DxsegError) as contradiction:
        import_dicom(export, tmp_path / "other", modalities=["US"], labels=labels)
    for caught in (several, none_left, bad_table, contradiction):
        chain = [caught.value, caught.value.__cause__]
        assert traces(repr(chain).encode()) == []


def test_unreadable_files_are_called_by_their_number(tmp_path: Path, image: Make) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    for name in ("b", "a", "c"):
        image(np.arange(16, dtype=np.uint8).reshape(4, 4)).save_as(
            folder / name, enforce_file_format=True
        )
    (folder / "B").write_text("not DICOM")
    report = import_dicom(folder, tmp_path / "data")
    # As `LC_ALL=C sort` has it: B, a, b, c.
    assert report.skipped == [("file 1", "not a DICOM file")]
    assert generate_uid() not in report.model_dump_json()
