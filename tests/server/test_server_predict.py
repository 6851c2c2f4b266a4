"""What `/v1/predict` answers: the same as the predictor, in every form, and why not."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from brightness import Maker, bright_square
from dicom_phantom import make_image
from dxseg.inference.model_info import NOTICE
from dxseg.server.schemas import run_lengths
from dxseg.server.settings import Settings
from dxseg.server.uploads import UploadDir
from serving import png, sent

DICOM = "application/dicom"


def dicom(**attributes: Any) -> bytes:
    stream = io.BytesIO()
    make_image(bright_square(32, 32)[:, :, 0], **attributes).save_as(
        stream, enforce_file_format=True
    )
    return stream.getvalue()


def decoded(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def drawn(rle: dict[str, Any]) -> np.ndarray:
    """Decode COCO's run lengths by their definition."""
    values = np.arange(len(rle["counts"])) % 2
    return np.repeat(values, rle["counts"]).reshape(rle["size"], order="F")


def test_the_answer_is_of_the_picture_as_shown(make_client: Any) -> None:
    image = np.full((48, 80), 10, np.uint8)
    image[10:20, 30:50] = 250
    exif, stream = Image.Exif(), io.BytesIO()
    exif[274] = 6
    Image.fromarray(image).save(stream, "PNG", exif=exif)
    told = make_client().post("/v1/predict", **sent(stream.getvalue())).json()
    turned = np.ascontiguousarray(np.rot90(image, -1))
    [expected] = Maker()(lesion_free=("normal",)).predict([turned[:, :, None]])
    assert told["mask"]["rle"]["class0"]["size"] == [80, 48]
    assert np.array_equal(decoded(told["mask"]["png"]), expected.mask * 255)


def test_the_answer_is_what_the_predictor_says(make_client: Any) -> None:
    image = np.full((48, 80), 10, np.uint8)
    image[10:20, 30:50] = 250
    answer = make_client().post("/v1/predict", **sent(png(image)))
    assert answer.status_code == 200
    told = answer.json()
    [expected] = Maker()(lesion_free=("normal",)).predict([image[:, :, None]])
    assert expected.mask.any()
    assert np.array_equal(decoded(told["mask"]["png"]), expected.mask * 255)
    assert np.array_equal(drawn(told["mask"]["rle"]["class0"]), expected.mask)
    assert told["area"] == {"class0": {"pixels": int(expected.mask.sum()), "mm2": None}}
    assert told["label_probabilities"] == pytest.approx(expected.label_probabilities, abs=1e-6)
    assert told["confidence"] == pytest.approx(expected.confidence, abs=1e-6)
    assert told["image"] == {"height": 48, "width": 80, "spacing_mm": None}
    assert (told["model"], told["label_prompt"], told["notice"]) == ("ab" * 6, "", NOTICE)
    assert told["evidence"] is None
    assert answer.headers["x-request-id"] == told["request_id"]


def test_several_classes_are_numbers_and_have_an_area_each(make_client: Any) -> None:
    image = np.full((32, 32, 2), 10, np.uint8)
    image[2:6, 2:6, 0], image[20:25, 8:12, 1] = 250, 250
    color = np.dstack([image, np.zeros((32, 32), np.uint8)])
    client = make_client(classes=2, channels=3)
    told = client.post(
        "/v1/predict", **sent(png(color)), data={"spacing_y": "0.5", "spacing_x": "2"}
    ).json()
    assert sorted(np.unique(decoded(told["mask"]["png"]))) == [0, 1, 2]
    assert told["area"] == {
        "class0": {"pixels": 16, "mm2": 16.0},
        "class1": {"pixels": 20, "mm2": 20.0},
    }


def test_evidence_is_given_when_asked_for(make_client: Any) -> None:
    client = make_client()
    told = client.post("/v1/predict", **sent(png()), data={"evidence": "true"}).json()
    [expected] = Maker()().predict([bright_square(32, 32)])
    assert list(told["evidence"]) == ["normal", "bright"]
    maps = np.stack([decoded(text) for text in told["evidence"].values()])
    assert np.array_equal(maps, np.rint(expected.evidence * 255))


def test_a_known_label_is_used(make_client: Any) -> None:
    client = make_client()
    told = client.post("/v1/predict", **sent(png()), data={"label_prompt": "normal"}).json()
    assert (told["label_prompt"], told["area"]["class0"]["pixels"]) == ("normal", 0)
    told = client.post("/v1/predict", **sent(png()), data={"label_prompt": "bright"}).json()
    assert (told["label_prompt"], told["area"]["class0"]["pixels"]) == ("bright", 64)
    refused = client.post("/v1/predict", **sent(png()), data={"label_prompt": "odd"})
    assert refused.status_code == 422
    assert "normal, bright" in refused.json()["detail"]


def test_the_spacing_of_dicom_gives_square_millimeters(make_client: Any) -> None:
    client, content = make_client(), dicom(PixelSpacing=[0.5, 0.25])
    told = client.post("/v1/predict", **sent(content, "IM1")).json()
    assert told["image"]["spacing_mm"] == [0.5, 0.25]
    assert told["area"]["class0"] == {"pixels": 64, "mm2": 8.0}
    # What the request says goes first.
    fields = {"spacing_y": "1", "spacing_x": "1"}
    told = client.post("/v1/predict", **sent(content), data=fields).json()
    assert told["area"]["class0"]["mm2"] == 64.0


@pytest.mark.parametrize("asked", ["field", "header"])
def test_dicom_comes_back_as_a_segmentation_of_it(make_client: Any, asked: str) -> None:
    pytest.importorskip("highdicom")
    content = dicom(PatientID="H-1")
    how = {"data": {"format": "dicom-seg"}} if asked == "field" else {"headers": {"Accept": DICOM}}
    answer = make_client().post("/v1/predict", **sent(content), **how)
    assert (answer.status_code, answer.headers["content-type"]) == (200, DICOM)
    seg = pydicom.dcmread(io.BytesIO(answer.content))
    source = pydicom.dcmread(io.BytesIO(content))
    assert (seg.Modality, seg.PatientID) == ("SEG", "H-1")
    [referred] = seg.SourceImageSequence
    assert referred.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert np.array_equal(seg.pixel_array, bright_square(32, 32)[:, :, 0] > 127)


def test_a_picture_has_no_segmentation(make_client: Any) -> None:
    answer = make_client().post("/v1/predict", **sent(png()), data={"format": "dicom-seg"})
    assert answer.status_code == 422
    assert "DICOM image" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"hello", "not an image"),
        (png()[:60], "damaged"),
        (dicom()[:400], "no image"),
        (png(np.zeros((8, 8), np.uint16)), "uint16"),
    ],
)
def test_what_is_no_image_is_a_problem_that_says_so(
    make_client: Any, content: bytes, told: str
) -> None:
    answer = make_client().post("/v1/predict", **sent(content, "Jane Doe.png"))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert told in problem["detail"]
    assert problem["detail"].startswith("the upload: ")
    assert "Doe" not in answer.text
    assert "/" not in problem["detail"].replace("'dxseg[dicom]'", "")


@pytest.mark.parametrize(
    "fields",
    [
        {"spacing_y": "1"},
        {"spacing_y": "0", "spacing_x": "1"},
        {"spacing_y": "nan", "spacing_x": "1"},
        {"format": "secret"},
        {"evidence": "secret"},
    ],
)
def test_wrong_fields_are_named_and_not_repeated(make_client: Any, fields: dict[str, str]) -> None:
    answer = make_client().post("/v1/predict", **sent(png()), data=fields)
    assert answer.status_code == 422
    assert next(iter(fields)) in answer.json()["detail"]
    assert "secret" not in answer.text


def test_a_bad_image_does_not_harm_its_neighbours(make_client: Any) -> None:
    client = make_client()
    statuses = [
        client.post("/v1/predict", **sent(content)).status_code
        for content in (png(), b"bad", png(), png()[:50], png())
    ]
    assert statuses == [200, 422, 200, 422, 200]


def test_images_of_too_many_pixels_are_not_decoded(make_client: Any) -> None:
    client = make_client(Settings(max_pixels=1023))
    answer = client.post("/v1/predict", **sent(png()))
    assert answer.status_code == 413
    assert "32 x 32" in answer.json()["detail"]
    assert make_client(Settings(max_pixels=1024)).post("/v1/predict", **sent(png())).is_success


def test_an_image_may_take_eight_bytes_per_pixel(make_client: Any) -> None:
    def tiff(channels: int) -> bytes:
        stream = io.BytesIO()
        pixels = np.zeros((32, 32, channels), np.uint16)
        tifffile.imwrite(stream, pixels, compression="zlib", planarconfig="contig")
        return stream.getvalue()

    client = make_client(Settings(max_pixels=1024))
    statuses = [client.post("/v1/predict", **sent(tiff(n))).status_code for n in (4, 5, 5000)]
    assert statuses == [422, 413, 413], "channels that the model lacks, then too many bytes"


def test_a_deflate_bomb_is_not_inflated(make_client: Any) -> None:
    ds = make_image(bright_square(32, 32)[:, :, 0])
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.add_new(0x00091001, "OB", bytes(2**25))
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    answer = make_client(Settings(max_pixels=2**12)).post("/v1/predict", **sent(stream.getvalue()))
    assert answer.status_code == 413
    assert "inflates beyond" in answer.json()["detail"]


def test_nothing_that_was_sent_stays(
    make_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client = make_client()
    [folder] = tmp_path.glob("dxseg-serve-*")
    assert folder.stat().st_mode & 0o077 == 0
    for content in (png(), b"bad", dicom()):
        client.post("/v1/predict", **sent(content))
        assert [path.name for path in folder.iterdir()] == ["lock"]


def test_what_a_killed_server_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, others = tmp_path / "dxseg-serve-left", tmp_path / "dxseg-serve-others"
    for folder in (left, others):
        folder.mkdir()
        (folder / "upload.png").write_bytes(b"a patient")
    (left / "lock").touch()  # that nobody holds; the other has none, and is none of ours
    first = UploadDir()
    second = UploadDir()
    assert set(tmp_path.iterdir()) == {others, first.path, second.path}
    first.close()
    second.close()
    assert set(tmp_path.iterdir()) == {others}


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_come_back_as_the_mask(mask: np.ndarray) -> None:
    rle = run_lengths(mask)
    assert sum(rle.counts) == mask.size
    assert min(rle.counts[1:], default=1) > 0
    assert np.array_equal(drawn(rle.model_dump()), mask)


def test_a_network_at_a_spacing_uses_the_one_that_is_sent_or_of_the_file(make_client: Any) -> None:
    """A stripe of one pixel is averaged away at a quarter of the size."""
    stripe = np.full((32, 32), 10, np.uint8)
    stripe[:, 8] = 250
    client = make_client(spacing=(2.0, 2.0))
    stream = io.BytesIO()
    make_image(stripe, PixelSpacing=[0.5, 0.5]).save_as(stream, enforce_file_format=True)

    def area(content: bytes, **fields: float) -> int:
        response = client.post("/v1/predict", **sent(content), data=fields)
        assert response.status_code == 200, response.text
        pixels = response.json()["area"]["class0"]["pixels"]
        assert isinstance(pixels, int)
        return pixels

    assert area(png(stripe)) == 32
    assert area(png(stripe), spacing_y=2, spacing_x=2) == 32
    assert area(png(stripe), spacing_y=0.5, spacing_x=0.5) == 0
    assert area(stream.getvalue()) == 0
    assert area(stream.getvalue(), spacing_y=2, spacing_x=2) == 32
