"""Label maps of volumes of the dataset over HTTP: place, masks, and what is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import volume_phantom
from dxseg.commands.import_volumes import import_volumes
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.annotations import save_mask
from dxseg.data.table.cases import CASES_FILE
from dxseg.data.table.dataset import Dataset
from dxseg.server.settings import Settings
from serving import TOKEN, volumes

TURN: volume_phantom.Turn = ((2, 0, 1), (-1, 1, -1))
SHAPE = (10, 32, 24)
"""Of the source: its axes lead from head to feet, rightwards, backwards."""
SLICE = (10, 32)
"""Of a coronal slice; there are 24."""


def oblique() -> np.ndarray:
    """The affine of `TURN`, tilted about two axes of the patient."""
    tilt, turn = np.deg2rad([11, 17])
    about_x = [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    about_z = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    affine = volume_phantom.turned_affine(TURN)
    affine[:3] = np.array(about_x) @ about_z @ affine[:3]
    return affine.astype(np.float32).astype(np.float64)


def bring(source: Path, destination: Path) -> Path:
    rule = {"axis": "coronal", "window": "abdomen"}
    import_volumes(source, destination, name="data", mask_values={1: "class0"}, **rule)
    return destination


@pytest.fixture
def source(tmp_path: Path) -> Path:
    hounsfield, _ = volume_phantom.ct()
    return volume_phantom.save(tmp_path / "source/ct.nii.gz", hounsfield, TURN, oblique())


@pytest.fixture
def root(source: Path, tmp_path: Path) -> Path:
    return bring(source.parent, tmp_path / "data")


def serve(make_client: Any, root: Path, **limits: Any) -> Any:
    client = make_client(Settings(token=TOKEN, **limits), dataset=root)
    client.headers.update({"Authorization": f"Bearer {TOKEN}"})
    return client


def ask(client: Any, case_id: str = "ct_0007", **masks: Any) -> Any:
    return client.post("/v1/cases/volume/labels", json={"case_id": case_id, **masks})


def labels_of(answer: Any, folder: Path) -> Any:
    assert answer.status_code == 200, answer.text
    path = folder / "answer.nii.gz"
    path.write_bytes(base64.b64decode(answer.json()["nifti"]))
    return nibabel.load(path)


def drawn(*pixels: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SLICE, np.uint8)
    for pixel in pixels:
        mask[pixel] = 1
    return mask


def runs(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths of a mask whose first pixel is 0."""
    flat = mask.ravel(order="F")
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    return {"class0": {"size": list(mask.shape), "counts": np.diff(edges).tolist()}}


def masks_of(root: Path) -> dict[str, bytes]:
    """Masks that are not empty, by case."""
    dataset = Dataset.load(root)
    paths = {row.case_id: dataset.mask_path(row) for row in dataset.cases.itertuples()}
    read = {name: read_mask(path, 1) for name, path in paths.items() if path is not None}
    return {name: mask.tobytes() for name, mask in read.items() if mask.any()}


def test_corrections_lie_at_the_voxels_of_the_source(
    make_client: Any, source: Path, root: Path, tmp_path: Path
) -> None:
    save_mask(root, "ct_0007", drawn((1, 2), (1, 3), (4, 30)), "trainee")
    save_mask(root, "ct_0020", drawn((9, 0)), "trainee")
    answer = ask(serve(make_client, root))
    labels = labels_of(answer, tmp_path)
    told = {name: count for name, count in answer.json().items() if name != "nifti"}
    assert told == {"drawn": 0, "known": 2, "predicted": 0, "empty": 22}
    original = nibabel.load(source)
    assert labels.shape == original.shape == SHAPE
    assert np.array_equal(labels.affine, original.affine)
    # Coronal slices count from the back, rows from the head, columns from the patient's right. The
    # axes of the source lead from the head, from the left, from the front.
    expected = {(1, 29, 16), (1, 28, 16), (4, 1, 16), (9, 31, 3)}
    assert {tuple(voxel) for voxel in np.argwhere(labels.dataobj).tolist()} == expected
    nibabel.save(labels, source.parent / "ct_seg.nii.gz")
    assert masks_of(bring(source.parent, tmp_path / "again")) == masks_of(root)


def test_masks_that_are_not_saved_are_used_as_they_were_shown(
    make_client: Any, root: Path, tmp_path: Path
) -> None:
    for name in ("ct_0007", "ct_0020"):
        save_mask(root, name, drawn((0, 5)), "trainee")
    answer = ask(
        serve(make_client, root),
        drawn={"ct_0007": runs(drawn((1, 5), (2, 5)))},
        predicted={name: runs(drawn((3, 5), (4, 5), (5, 5))) for name in ("ct_0008", "ct_0020")},
    )
    labels = np.asarray(labels_of(answer, tmp_path).dataobj)
    told = {name: count for name, count in answer.json().items() if name != "nifti"}
    assert told == {"drawn": 1, "known": 1, "predicted": 1, "empty": 21}
    counts = labels.sum(axis=(0, 1))[::-1]
    assert {int(n): int(counts[n]) for n in np.flatnonzero(counts)} == {7: 2, 8: 3, 20: 1}


def test_a_lesion_free_label_is_an_empty_mask(make_client: Any, root: Path) -> None:
    dataset = Dataset.load(root)
    dataset.cases.loc[dataset.cases["case_id"].eq("ct_0003"), "label"] = "normal"
    dataset.spec = dataset.spec.model_copy(update={"labels": ["normal"], "lesion_free": ["normal"]})
    dataset.save()
    client = serve(make_client, root)
    told = ask(client, predicted={"ct_0003": runs(drawn((3, 5)))}).json()
    assert (told["known"], told["predicted"], told["empty"]) == (1, 0, 23)


def test_a_record_without_the_grid_is_refused_and_written_by_the_next_import(
    make_client: Any, source: Path, root: Path, tmp_path: Path
) -> None:
    record = root / ".volumes/ct.json"
    fields = json.loads(record.read_text())
    older = {name: value for name, value in fields.items() if name not in ("affine", "shape")}
    record.write_text(json.dumps(older))
    client = serve(make_client, root)
    answer = ask(client)
    assert answer.status_code == 422
    assert "import the source again" in answer.json()["detail"]
    assert str(tmp_path) not in answer.text
    other = bring(source.parent, tmp_path / "other")
    record.write_bytes((other / ".volumes/ct.json").read_bytes())
    assert ask(client).status_code == 200
    record.write_text(json.dumps(older))
    import_again = other / ".volumes/ct.json"
    import_again.write_text(json.dumps(older))
    (other / "dataset.yaml").unlink()
    (other / ".import-unfinished").touch()
    bring(source.parent, other)
    assert json.loads(import_again.read_text()) == fields


def test_what_has_no_grid_is_refused(make_client: Any, tmp_path: Path) -> None:
    client = serve(make_client, volumes(tmp_path / "made").root)
    assert ask(client, "nobody").status_code == 404
    for case_id, says in (("single", "an image"), ("left2", "no record of an import")):
        answer = ask(client, case_id)
        assert answer.status_code == 422
        assert says in answer.json()["detail"]


def test_wrong_masks_tables_and_sizes_are_refused(
    make_client: Any, root: Path, tmp_path: Path
) -> None:
    client = serve(make_client, root)
    for masks in (
        {"drawn": {"nobody": runs(drawn((1, 1)))}},
        {"predicted": {"ct_0007": runs(np.zeros((10, 31), np.uint8))}},
        {"drawn": {"ct_0007": {}}},
    ):
        assert ask(client, **masks).status_code == 422, masks
    assert ask(serve(make_client, root, max_pixels=200)).status_code == 413
    table = (root / CASES_FILE).read_text()
    save_mask(root, "ct_0007", drawn(), "trainee")
    (root / "images/copy.png").write_bytes((root / "images/ct/0007.png").read_bytes())
    changed = (root / CASES_FILE).read_text().replace("images/ct/0007.png", "images/copy.png")
    (root / CASES_FILE).write_text(changed)
    assert "has not written its image" in ask(client).json()["detail"]
    (tmp_path / "outside.json").write_bytes((root / ".volumes/ct.json").read_bytes())
    lines = table.splitlines()
    column = lines[0].split(",").index("volume_id")
    moved = [line.split(",") for line in lines]
    for fields in moved[1:]:
        fields[column] = "../../outside"
    (root / CASES_FILE).write_text("\n".join(map(",".join, moved)) + "\n")
    assert "no record of an import" in ask(client).json()["detail"]
