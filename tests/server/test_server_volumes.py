"""Volumes and multi-frame objects over HTTP: slices, their values, label maps, limits."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest

import dicom_phantom
import volume_phantom
from dxseg.data.readers.slicing import Slicing, make_slicing
from dxseg.inference.components import ComponentFilter
from dxseg.server.settings import Settings
from dxseg.server.volume_store import OpenVolume

SLICING = Slicing(axis="axial", window=(0.0, 200.0))
BRIGHT = 90
"""HU: half of the window's upper part, so brighter ones are lesion to the network of the tests."""


@pytest.fixture
def client(make_client: Any) -> Any:
    return make_client(slicing=SLICING, channels=1, size=32)


def opened(client: Any, *paths: Path) -> dict[str, Any]:
    files = [("files", ("image", path.read_bytes())) for path in paths]
    answer = client.post("/v1/volumes", files=files)
    assert answer.status_code == 200, answer.text
    return answer.json()


def slice_of(client: Any, volume: str, index: int, label_prompt: str = "") -> Any:
    sent = {"volume": volume, "index": index, "label_prompt": label_prompt}
    return client.post("/v1/volumes/slice", json=sent)


def labels_of(client: Any, volume: str, masks: dict[int, Any], folder: Path) -> tuple[Any, Any]:
    answer = client.post("/v1/volumes/labels", json={"volume": volume, "masks": masks})
    assert answer.status_code == 200, answer.text
    (folder / "labels.nii.gz").write_bytes(base64.b64decode(answer.json()["nifti"]))
    return answer.json(), nibabel.load(folder / "labels.nii.gz")


def runs(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths of a mask whose first pixel is 0."""
    flat = mask.ravel(order="F")
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    return {"class0": {"size": list(mask.shape), "counts": np.diff(edges).tolist()}}


@pytest.mark.parametrize("turn", volume_phantom.TURNS[::7])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_label_map_has_the_grid_of_its_volume(
    client: Any, tmp_path: Path, turn: volume_phantom.Turn, suffix: str
) -> None:
    hounsfield, _ = volume_phantom.ct()
    source = volume_phantom.save(tmp_path / f"ct{suffix}", hounsfield, turn)
    told = opened(client, source)
    assert (told["slices"], told["height"], told["width"]) == (10, 24, 32)
    assert told["spacing_mm"] == pytest.approx([0.8, 0.75])
    drawn = np.zeros((24, 32), np.uint8)
    drawn[3:5, 7:9] = 1
    answer, labels = labels_of(client, told["volume"], {6: runs(drawn)}, tmp_path)
    assert (answer["given"], answer["predicted"]) == (1, 9)
    original = nibabel.load(source)
    assert labels.shape == original.shape
    assert np.array_equal(labels.affine, original.affine)
    # Axes that lead right, front, head; slices count from the feet, rows from the front, columns
    # from the patient's right.
    back = nibabel.as_closest_canonical(labels)
    found = np.asarray(back.dataobj)
    assert np.argwhere(found[:, :, 6]).tolist() == [
        [31 - column, 23 - row] for column in (8, 7) for row in (4, 3)
    ]
    shown = [slice_of(client, told["volume"], index).json() for index in (5, 6)]
    assert shown[0]["area"]["class0"]["pixels"] == found[:, :, 5].sum() > 0
    assert shown[1]["area"]["class0"]["pixels"] != 4, "what is drawn is not what is predicted"


def test_the_smallest_volume_of_a_label_map_is_in_cubic_millimeters(
    make_client: Any, tmp_path: Path
) -> None:
    """Voxels have 3 mm3: a lesion of two, and a speck of one."""
    chosen = ComponentFilter(by_volume=True, min_volume_mm3=4.0)
    client = make_client(slicing=SLICING, channels=1, size=32, components=chosen)
    hounsfield = np.full(volume_phantom.SHAPE, -1000, np.int16)
    hounsfield[10, 10, 4:6] = hounsfield[20, 20, 8] = 190
    told = opened(client, volume_phantom.save(tmp_path / "ct.nii", hounsfield))
    _, labels = labels_of(client, told["volume"], {}, tmp_path)
    assert np.argwhere(np.asarray(labels.dataobj)).tolist() == [[10, 10, 4], [10, 10, 5]]


@pytest.mark.parametrize(("windows", "stays"), [(False, False), (True, True)])
def test_a_slice_in_windows_is_not_reduced(
    make_client: Any, tmp_path: Path, windows: bool, stays: bool
) -> None:
    """A lesion of 4 native pixels: one of the network's, or 4 where slices are cut."""
    client = make_client(
        slicing=SLICING,
        size=32,
        spacing=(1.0, 1.0),
        components=ComponentFilter(by_volume=True, min_area=2),
        sliding_window=windows,
    )
    hounsfield = np.full((64, 64, 6), -1000, np.int16)
    hounsfield[20:22, 20:22, 3] = 190
    path = tmp_path / "ct.nii"
    nibabel.save(nibabel.Nifti1Image(hounsfield, np.diag([1.0, 1.0, 3.0, 1.0])), path)
    told = opened(client, path)
    _, labels = labels_of(client, told["volume"], {}, tmp_path)
    assert np.asarray(labels.dataobj).any() == stays


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_metaimage_and_nrrd_are_volumes_too(client: Any, tmp_path: Path, suffix: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    hounsfield, _ = volume_phantom.ct()
    reference = volume_phantom.save(tmp_path / "ct.nii", hounsfield)
    sitk.WriteImage(sitk.ReadImage(reference), tmp_path / f"ct{suffix}")
    told = opened(client, tmp_path / f"ct{suffix}")
    assert (told["slices"], told["height"], told["width"]) == (10, 24, 32)
    found = [
        np.asarray(labels_of(client, opened(client, path)["volume"], {}, tmp_path)[1].dataobj)
        for path in (reference, tmp_path / f"ct{suffix}")
    ]
    assert found[0].any()
    back = nibabel.as_closest_canonical(nibabel.load(tmp_path / "labels.nii.gz"))
    assert np.allclose(back.affine, nibabel.as_closest_canonical(nibabel.load(reference)).affine)
    canonical = nibabel.as_closest_canonical(
        nibabel.Nifti1Image(found[0], nibabel.load(reference).affine)
    )
    assert np.array_equal(np.asarray(back.dataobj), np.asarray(canonical.dataobj))


def test_a_slice_comes_with_its_own_values(client: Any, tmp_path: Path) -> None:
    hounsfield, _ = volume_phantom.ct()
    told = opened(client, volume_phantom.save(tmp_path / "ct.nii", hounsfield))
    answer = slice_of(client, told["volume"], 4).json()
    values = answer["image_values"]
    import zlib

    numbers = np.frombuffer(zlib.decompress(base64.b64decode(values["deflated"])), "<u2")
    given = values["slope"] * numbers.reshape(24, 32) + values["intercept"]
    assert np.array_equal(given, hounsfield[::-1, ::-1, 4].T)
    assert values["window"] == [-100.0, 100.0]
    free = slice_of(client, told["volume"], 4, "normal").json()
    assert free["area"]["class0"]["pixels"] == 0


def test_the_files_of_a_dicom_series_are_one_volume(client: Any, tmp_path: Path) -> None:
    hounsfield = np.full((5, 16, 20), -1000, np.int16)
    hounsfield[2, 4:8, 3:9] = 90
    series = dicom_phantom.make_series(hounsfield)
    paths = [
        dicom_phantom.save(ds, tmp_path / f"{number}.dcm")
        for number, ds in enumerate(reversed(series))
    ]
    told = opened(client, *paths)
    assert (told["slices"], told["height"], told["width"]) == (5, 16, 20)
    shown = [slice_of(client, told["volume"], index).json() for index in range(5)]
    assert [one["area"]["class0"]["pixels"] > 0 for one in shown] == [
        False,
        False,
        True,
        *[False] * 2,
    ]
    assert shown[2]["image_values"]["unit"] == "HU"
    _, labels = labels_of(client, told["volume"], {}, tmp_path)
    assert labels.shape == (20, 16, 5)
    assert labels.header.get_zooms() == pytest.approx((0.75, 0.5, 2.0))


def test_the_frames_of_a_cine_loop_scroll_without_a_volume_model(
    make_client: Any, tmp_path: Path
) -> None:
    client = make_client()
    frames = np.full((4, 32, 32), 10, np.uint8)
    for index in range(4):
        frames[index, 4:12, 4 + index : 12 + index] = 250
    cine = dicom_phantom.save(
        dicom_phantom.make_image(frames, PixelSpacing=[0.3, 0.2]), tmp_path / "cine"
    )
    refused = client.post("/v1/predict", files={"file": ("image", cine.read_bytes())})
    assert refused.status_code == 422
    assert refused.json()["type"] == "urn:dxseg:problem:volume"
    told = opened(client, cine)
    assert (told["slices"], told["spacing_mm"]) == (4, [0.3, 0.2])
    _, labels = labels_of(client, told["volume"], {}, tmp_path)
    found = np.asarray(labels.dataobj)
    assert found.shape == (32, 32, 4)
    assert [found[:, :, index].sum() > 0 for index in range(4)] == [True] * 4
    assert np.array_equal(found[1:, :, 3], found[:-1, :, 2]), "each frame is further by one column"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cut.nii.gz", gzip.compress(b"\0" * 400, mtime=0), "no NIfTI"),
        ("image.png", b"no volume", "no volume"),
        ("empty.dcm", b"", "no volume"),
    ],
)
def test_what_is_no_volume_is_refused_by_name(
    client: Any, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    answer = client.post("/v1/volumes", files={"files": (name, content)})
    assert answer.status_code == 422
    assert "the upload" in answer.json()["detail"]
    assert says in answer.json()["detail"]
    assert name not in answer.text
    assert "/tmp" not in answer.text


def test_sequences_are_the_fourth_dimension_of_one_file(make_client: Any, tmp_path: Path) -> None:
    """Uploads have no names by which files could be told apart; the error gives the remedy."""
    rule = make_slicing(sequences={"post": "_post", "flair": "_flair"}, window="100,200")
    client = make_client(slicing=rule, channels=2, classes=2, size=32)
    hounsfield, _ = volume_phantom.ct()
    one = volume_phantom.save(tmp_path / "P1_post.nii", hounsfield)
    other = volume_phantom.save(tmp_path / "P1_flair.nii", -hounsfield)
    dicom = dicom_phantom.save(dicom_phantom.make_series(hounsfield[:5])[0], tmp_path / "a.dcm")
    for paths in ([one, other], [one], [dicom]):
        files = [("files", ("image", path.read_bytes())) for path in paths]
        refused = client.post("/v1/volumes", files=files)
        assert refused.status_code == 422
        assert "nibabel.concat_images" in refused.json()["detail"]
    assert "post, flair" in refused.json()["detail"]
    joined = nibabel.concat_images([one, other])
    joined.to_filename(tmp_path / "joined.nii")
    told = opened(client, tmp_path / "joined.nii")
    assert (told["slices"], told["height"], told["width"]) == (10, 24, 32)
    _, labels = labels_of(client, told["volume"], {}, tmp_path)
    assert labels.shape == hounsfield.shape
    assert np.array_equal(np.asarray(labels.dataobj) == 1, hounsfield > 100)


def test_a_volume_needs_a_model_of_slices(make_client: Any, tmp_path: Path) -> None:
    hounsfield, _ = volume_phantom.ct()
    content = volume_phantom.save(tmp_path / "ct.nii", hounsfield).read_bytes()
    client = make_client()
    for path, field in (("/v1/predict", "file"), ("/v1/volumes", "files")):
        answer = client.post(path, files={field: ("image", content)})
        assert answer.status_code == 422
        assert "volume" in answer.json()["detail"]


def test_a_small_file_cannot_claim_a_large_volume(make_client: Any, tmp_path: Path) -> None:
    client = make_client(Settings(max_pixels=2**10), slicing=SLICING)
    voxels = np.zeros((64, 64, 64), np.float32)
    path = volume_phantom.save(tmp_path / "zeros.nii.gz", voxels)
    assert path.stat().st_size < 10_000
    answer = client.post("/v1/volumes", files={"files": ("image", path.read_bytes())})
    assert answer.status_code == 413
    assert "64 x 64 x 64 voxels" in answer.json()["detail"]


def test_the_oldest_volume_is_closed_and_said_to_be(make_client: Any, tmp_path: Path) -> None:
    hounsfield, _ = volume_phantom.ct()
    path = volume_phantom.save(tmp_path / "ct.nii", hounsfield)
    client = make_client(Settings(max_pixels=1000), slicing=SLICING)
    first, second = opened(client, path), opened(client, path)
    assert slice_of(client, second["volume"], 0).status_code == 200
    gone = slice_of(client, first["volume"], 0)
    assert gone.status_code == 404
    assert "send it again" in gone.json()["detail"]


def test_masks_are_kept_while_others_are_read() -> None:
    """A label map is begun in one thread while another keeps the mask of a slice."""
    opened = OpenVolume("key", SimpleNamespace(), Path(), None)  # type: ignore[arg-type]

    class Model(str):
        def __eq__(self, other: object) -> bool:
            opened.predicted[str(other), 1] = np.ones((2, 2), np.uint8)
            return str(self) == other

        __hash__ = str.__hash__

    opened.predicted[Model("first"), 0] = np.zeros((2, 2), np.uint8)
    assert list(opened.kept("first")) == [0]
    assert list(opened.kept("first")) == [0, 1]


def test_wrong_slices_and_masks_are_refused(client: Any, tmp_path: Path) -> None:
    hounsfield, _ = volume_phantom.ct()
    volume = opened(client, volume_phantom.save(tmp_path / "ct.nii", hounsfield))["volume"]
    assert slice_of(client, volume, 10).status_code == 422
    for masks in ({10: runs(np.zeros((24, 32)))}, {0: runs(np.zeros((24, 31)))}, {0: {}}):
        answer = client.post("/v1/volumes/labels", json={"volume": volume, "masks": masks})
        assert answer.status_code == 422, masks
