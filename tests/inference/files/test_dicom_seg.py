"""DICOM SEG out: the same pixels in the same place, of the same patient, and called research."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_phantom import make_image, make_series, save
from dxseg import predict
from dxseg.data.readers.dicom.headers import read_header
from dxseg.data.readers.dicom.masks import draw_on_stack, read_mask_object
from dxseg.data.readers.dicom.series import series_in
from dxseg.data.readers.slicing import Slicing
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.components import ComponentFilter
from dxseg.inference.files import dicom_seg
from dxseg.inference.files.dicom_seg import STATEMENT, image_segmentation, series_segmentation
from dxseg.inference.files.table import _sizes, deciding
from dxseg.inference.predictor import Predictor

highdicom = pytest.importorskip("highdicom")

HOUNSFIELD = np.full((10, 24, 32), -1000)
HOUNSFIELD[3:6, 4:9, 20:30] = 500
HOUNSFIELD[8, 15:20, 3:11] = 500
NAME = "Doe^Jane"
PATIENT = {
    "PatientName": NAME,
    "PatientID": "H-4711",
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
    "AccessionNumber": "A-99",
    "StudyDate": "20240506",
    "StudyTime": "101112",
    "StudyID": "S1",
    "ReferringPhysicianName": "Roe^Rick",
}


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, make_predictor: Any) -> Callable[..., Predictor]:
    """Make `predict_files` run the network that finds bright pixels."""

    def install(**options: Any) -> Predictor:
        predictor = make_predictor(**options)
        monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)
        return predictor

    return install


def bright(height: int = 40, width: int = 56) -> Any:
    pixels = np.full((height, width), 10, np.uint8)
    pixels[4:12, 20:36] = 250
    return pixels


def segments(seg: Any) -> Any:
    """(frame, row, column) of segment 1, in the order of the frames."""
    return np.atleast_3d(seg.pixel_array.T).T


def complaints(path: Path) -> list[str]:
    """What dicom3tools' validator calls an error."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is absent; it is in Debian's package dicom3tools")
    told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert "Segmentation" in told.stderr, "it has recognized what the file is"
    return [line for line in told.stderr.splitlines() if line.startswith("Error")]


def test_an_image_gives_a_segmentation_of_its_size_that_names_it(tmp_path: Path, use: Any) -> None:
    predictor = use(size=64)
    source = make_image(bright(), **PATIENT)
    save(source, tmp_path / "in/sub/a.dcm")
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out", dicom_seg=True)
    assert (summary.done, summary.failed) == (1, [])
    seg = pydicom.dcmread(tmp_path / "out/segmentations/sub/a.dcm")
    [mask] = [prediction.mask for prediction in predictor.predict([bright()[:, :, None]])]
    assert mask.any()
    assert np.array_equal(segments(seg)[0], mask)
    [frame] = seg.PerFrameFunctionalGroupsSequence
    [referred] = frame.DerivationImageSequence[0].SourceImageSequence
    assert referred.ReferencedSOPInstanceUID == source.SOPInstanceUID
    [series] = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    for keyword, value in PATIENT.items():
        assert str(seg[keyword].value) == value


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1)])
def test_a_series_gives_a_segmentation_in_its_place(
    tmp_path: Path, use: Any, orientation: tuple[float, ...]
) -> None:
    use(slicing=Slicing(window=(100.0, 200.0)))
    objects = make_series(HOUNSFIELD, orientation=orientation, **PATIENT)
    for number, ds in enumerate(objects):
        save(ds, tmp_path / "export/CT" / f"IM{7 * number % 10}")
    predict("model_folder", tmp_path / "export", output=tmp_path / "out", dicom_seg=True)
    path = tmp_path / "out/segmentations/CT.dcm"
    # Read by other code than wrote it: ours, which places every frame anew.
    stack = series_in(tmp_path / "export/CT")
    drawn = draw_on_stack(read_mask_object(read_header(path, "seg")), {1: 1}, stack).values
    assert np.array_equal(drawn, (HOUNSFIELD > 100).transpose(2, 1, 0))
    label_map = nibabel.load(tmp_path / "out/masks/CT.nii.gz")
    assert np.array_equal(drawn, np.asarray(label_map.dataobj))
    assert np.allclose(stack.affine, label_map.affine)
    # And as highdicom finds it by the instances it refers to.
    read = highdicom.seg.segread(path)
    planes = read.get_pixels_by_source_instance(
        [ds.SOPInstanceUID for ds in objects],
        assert_missing_frames_are_empty=True,
        combine_segments=True,
    )
    assert np.array_equal(planes, HOUNSFIELD > 100)
    assert read.NumberOfFrames == 4, "slices with a lesion"


def test_a_multi_frame_object_is_one_source(tmp_path: Path, make_predictor: Any) -> None:
    info = make_predictor().info
    frames = []
    for index in (2, 0, 1):
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0.0, 0.0, 2.0 * index]
        group.PlanePositionSequence = [place]
        frames.append(group)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1.0, 1.0], 2.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    source = make_image(
        np.zeros((3, 8, 9), np.uint8),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        Modality="CT",
        FrameOfReferenceUID=pydicom.uid.generate_uid(),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    )
    save(source, tmp_path / "CT/a.dcm")
    stack = series_in(tmp_path / "CT")
    mask = np.zeros((9, 8, 3), np.uint8)
    mask[1, 2, 0] = mask[3, 4, 2] = 1
    path = tmp_path / "seg.dcm"
    path.write_bytes(series_segmentation(stack, mask, info))
    drawn = draw_on_stack(read_mask_object(read_header(path, "seg")), {1: 1}, stack).values
    assert np.array_equal(drawn, mask)


def test_classes_are_segments(tmp_path: Path, make_predictor: Any) -> None:
    info = make_predictor(classes=2, channels=2).info
    path = save(make_image(bright(12, 16)), tmp_path / "a.dcm")
    mask = np.zeros((12, 16), np.uint8)
    mask[1:4, 2:5], mask[6:9, 7:11] = 1, 2
    (tmp_path / "seg.dcm").write_bytes(image_segmentation(path, mask, info))
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["class0", "class1"]
    assert np.array_equal(segments(seg), [mask == 1, mask == 2])


def test_it_says_who_made_it_and_that_it_is_research(tmp_path: Path, make_predictor: Any) -> None:
    info = make_predictor().info
    path = save(make_image(bright()), tmp_path / "a.dcm")
    (tmp_path / "seg.dcm").write_bytes(
        image_segmentation(path, (bright() > 99).astype(np.uint8), info)
    )
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    [segment] = seg.SegmentSequence
    [algorithm] = segment.SegmentationAlgorithmIdentificationSequence
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("dxseg", info.dxseg_version)
    assert info.weights_sha256 in algorithm.AlgorithmParameters
    assert seg.ContentQualification == seg.ContentLabel == "RESEARCH"
    for told in (seg.ContentDescription, seg.SeriesDescription, algorithm.AlgorithmParameters):
        assert STATEMENT in told
    assert "not for clinical use" in STATEMENT


@pytest.mark.parametrize("lesion", [True, False])
@pytest.mark.parametrize("classes", [1, 2])
def test_the_validator_of_dicom3tools_finds_no_error(
    tmp_path: Path, make_predictor: Any, lesion: bool, classes: int
) -> None:
    info = make_predictor(classes=classes, channels=classes).info
    picture = save(make_image(bright(), **PATIENT), tmp_path / "a.dcm")
    mask = (bright() > 99).astype(np.uint8) * np.uint8(classes * lesion)
    (tmp_path / "image.dcm").write_bytes(image_segmentation(picture, mask, info))
    assert complaints(tmp_path / "image.dcm") == []
    for number, ds in enumerate(make_series(HOUNSFIELD, **PATIENT)):
        save(ds, tmp_path / f"CT/{number}.dcm")
    volume = (HOUNSFIELD > 0).astype(np.uint8).transpose(2, 1, 0) * np.uint8(classes * lesion)
    (tmp_path / "series.dcm").write_bytes(
        series_segmentation(series_in(tmp_path / "CT"), volume, info)
    )
    assert complaints(tmp_path / "series.dcm") == []


def test_the_validator_would_find_one(tmp_path: Path, make_predictor: Any) -> None:
    path = save(make_image(bright()), tmp_path / "a.dcm")
    mask = (bright() > 99).astype(np.uint8)
    (tmp_path / "seg.dcm").write_bytes(image_segmentation(path, mask, make_predictor().info))
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    del seg.SegmentSequence
    seg.save_as(tmp_path / "bad.dcm")
    assert complaints(tmp_path / "bad.dcm")


def test_an_image_without_lesion_gives_an_empty_segmentation(
    tmp_path: Path, make_predictor: Any
) -> None:
    path = save(make_image(bright()), tmp_path / "a.dcm")
    content = image_segmentation(path, np.zeros((40, 56), np.uint8), make_predictor().info)
    (tmp_path / "seg.dcm").write_bytes(content)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert not seg.pixel_array.any()
    assert seg.SegmentSequence[0].SegmentLabel == "class0"


def test_what_the_source_leaves_out_is_empty_and_what_no_reader_knows_too(
    tmp_path: Path, make_predictor: Any
) -> None:
    source = make_image(bright(), PatientSex="unknown")
    del source.PatientName, source.StudyDate, source.PatientID
    path = save(source, tmp_path / "a.dcm")
    mask = (bright() > 99).astype(np.uint8)
    (tmp_path / "seg.dcm").write_bytes(image_segmentation(path, mask, make_predictor().info))
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyDate"):
        assert str(seg[keyword].value or "") == "", keyword


def test_a_name_in_another_script_stays_as_it_is(tmp_path: Path, make_predictor: Any) -> None:
    source = make_image(bright(), SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Zoë")
    path = save(source, tmp_path / "a.dcm")
    mask = (bright() > 99).astype(np.uint8)
    (tmp_path / "seg.dcm").write_bytes(image_segmentation(path, mask, make_predictor().info))
    assert str(pydicom.dcmread(tmp_path / "seg.dcm").PatientName) == "Müller^Zoë"


@pytest.mark.parametrize(
    "change", [{"StudyInstanceUID": ""}, {"SOPClassUID": "1.2.3"}, {"PatientBirthDate": "never"}]
)
def test_a_source_that_no_segmentation_can_refer_to_is_an_error_without_its_patient(
    tmp_path: Path,
    make_predictor: Any,
    change: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    path = save(make_image(bright()), tmp_path / "a.dcm")
    with pydicom.config.disable_value_validation():
        ds = pydicom.dcmread(path)
        ds.PatientName = "SECRET"
        for keyword, value in change.items():
            setattr(ds, keyword, value)
        ds.save_as(path)
    recwarn.clear()
    caplog.set_level(logging.DEBUG)
    mask = (bright() > 99).astype(np.uint8)
    with pytest.raises(DxsegError, match=r"a\.dcm") as error:
        image_segmentation(path, mask, make_predictor().info)
    shown = "".join((str(error.value), caplog.text, *capfd.readouterr()))
    assert "SECRET" not in shown
    assert "never" not in shown
    assert [str(warning.message) for warning in recwarn] == []


def test_a_mask_of_another_size_is_refused(tmp_path: Path, make_predictor: Any) -> None:
    path = save(make_image(bright()), tmp_path / "a.dcm")
    with pytest.raises(DxsegError, match="changed since"):
        image_segmentation(path, np.ones((3, 3), np.uint8), make_predictor().info)


def test_pictures_beside_dicom_get_none(tmp_path: Path, use: Any, write_image: Any) -> None:
    use()
    write_image(tmp_path / "in/p.png")
    save(make_image(bright()), tmp_path / "in/a.dcm")
    predict("model_folder", tmp_path / "in", output=tmp_path / "out", dicom_seg=True)
    written = [path.name for path in (tmp_path / "out/segmentations").iterdir()]
    assert written == ["a.dcm"]
    with pytest.raises(UsageError, match="no DICOM there"):
        predict("model_folder", tmp_path / "in/p.png", output=tmp_path / "other", dicom_seg=True)
    assert not (tmp_path / "other").exists()


def test_a_folder_predicted_without_them_gets_them_and_is_then_done(
    tmp_path: Path, use: Any
) -> None:
    use()
    save(make_image(bright()), tmp_path / "in/a.dcm")
    run = partial(predict, "model_folder", tmp_path / "in", output=tmp_path / "out")
    assert run().done == 1
    assert not (tmp_path / "out/segmentations").exists()
    assert run(dicom_seg=True).done == 1
    again = run(dicom_seg=True)
    assert (again.done, again.skipped) == (0, 1)


def test_a_failure_leaves_no_segmentation_of_an_earlier_call(tmp_path: Path, use: Any) -> None:
    use()
    path = save(make_image(bright()), tmp_path / "in/a.dcm")
    run = partial(predict, "model_folder", tmp_path / "in", output=tmp_path / "out")
    run(dicom_seg=True)
    path.write_bytes(path.read_bytes()[:400])
    assert len(run(overwrite=True).failed) == 1
    assert not (tmp_path / "out/segmentations/a.dcm").exists()


def test_without_highdicom_the_extra_is_named(
    tmp_path: Path, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use()
    save(make_image(bright()), tmp_path / "a.dcm")
    monkeypatch.setattr(dicom_seg, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"dxseg\[dicom\]"):
        predict("model_folder", tmp_path / "a.dcm", output=tmp_path / "out", dicom_seg=True)


@pytest.mark.parametrize(
    "charset",
    [None, "", "ISO_IR 999", "ISO 2022 IR 100", ["ISO_IR 100", "ISO_IR 144"], ["", "ISO_IR 100"]],
)
def test_a_source_with_an_odd_character_set_gets_a_segmentation(
    tmp_path: Path, make_predictor: Any, charset: Any
) -> None:
    source = make_image(bright(), PatientName="QQQQQ")
    if charset is not None:
        source.SpecificCharacterSet = charset
    path = save(source, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes().replace(b"QQQQQ", b"M\xfcler"))
    mask = (bright() > 99).astype(np.uint8)
    (tmp_path / "seg.dcm").write_bytes(image_segmentation(path, mask, make_predictor().info))
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert str(seg.PatientName) == "Müler"
    assert seg.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.parametrize("kind", ["image", "series"])
def test_without_its_segmentation_the_mask_stays(tmp_path: Path, use: Any, kind: str) -> None:
    use(slicing=Slicing(window=(100.0, 200.0)) if kind == "series" else None)
    if kind == "series":
        for number, ds in enumerate(make_series(np.full((4, 24, 32), 500), SOPClassUID="1.2.3")):
            save(ds, tmp_path / f"in/a/{number}.dcm")
    else:
        save(make_image(bright(), SOPClassUID="1.2.3"), tmp_path / "in/a.dcm")
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out", dicom_seg=True)
    [(_, reason)] = summary.failed
    assert reason.startswith("the mask is written, but no DICOM SEG: ")
    assert "damaged" not in reason
    written = tmp_path / "out/masks" / ("a.nii.gz" if kind == "series" else "a.png")
    assert written.is_file()
    assert not list((tmp_path / "out").glob("segmentations/*"))
    row = (tmp_path / "out/predictions.csv").read_text("utf-8").splitlines()[1]
    assert ",ok," in row
    assert "no DICOM SEG" in row
    again = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert (again.skipped, again.failed) == (1, [])


def test_organs_are_no_lesions(tmp_path: Path, make_predictor: Any) -> None:
    """Neither in a SEG nor in the table; in models of earlier versions all classes are lesions."""
    info = make_predictor(classes=2, channels=2).info
    marked = info.model_copy(update={"lesion_classes": ["class1"]})
    path = tmp_path / "a.dcm"
    save(make_image(bright(), **PATIENT), path)
    mask = np.zeros((40, 56), np.uint8)
    mask[:4], mask[4:6] = 1, 2
    for model, types, area in (
        (info, ["Lesion", "Lesion"], 336),
        (marked, ["Organ", "Lesion"], 112),
    ):
        seg = pydicom.dcmread(BytesIO(image_segmentation(path, mask, model)))
        found = [one.SegmentedPropertyTypeCodeSequence[0] for one in seg.SegmentSequence]
        assert [one.CodeMeaning for one in found] == types
        sizes = _sizes("lesion_area_px", mask, model)
        assert list(sizes.values()) == [area, 224, 112]
    assert deciding(info) == deciding(marked), "results of earlier versions can be continued"
    pixels = marked.model_copy(update={"components": ComponentFilter(min_area=4)})
    kept = {"largest_only", "min_area", "by_volume"}
    assert set(deciding(pixels)["components"]) == kept, "as before there were cubic millimeters"
