"""Slices of the served dataset are predicted and shown as elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from brightness import Maker
from dxseg.data.readers.slicing import Slicing
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.evaluation.stream import predict_rows
from dxseg.server.case_queue import CaseQueue
from dxseg.server.settings import Settings
from dxseg.server.work_list import list_cases
from serving import TOKEN

SIZE, SLICES = 32, 5
SETTINGS, BEARER = Settings(token=TOKEN), {"Authorization": f"Bearer {TOKEN}"}
LABELS = {"labels": ["normal", "bright"], "lesion_free": ["normal"], "mask_classes": ["class0"]}


def levels(number: int) -> np.ndarray:
    """Slice 2 alone is bright enough for the network."""
    return np.full((SIZE, SIZE), 150 if number == 2 else 100 + number, np.uint8)


def volume(root: Path, neighbours: int = 0, **columns: Any) -> Dataset:
    (root / "images").mkdir(parents=True)
    rows = []
    for number in range(SLICES):
        name = f"images/{number}.{'tif' if neighbours else 'png'}"
        if neighbours:
            places = np.arange(number - neighbours, number + neighbours + 1).clip(0, SLICES - 1)
            planes = np.stack([levels(place) for place in places], axis=2)
            tifffile.imwrite(root / name, planes, photometric="minisblack", planarconfig="contig")
        else:
            Image.fromarray(levels(number)).save(root / name)
        rows.append((f"s{number}", name, "v", number, 1.0, 1.0, 2.0))
    names = ("case_id", "image", "volume_id", "slice_index", "spacing_y", "spacing_x", "spacing_z")
    slicing = Slicing(axis="axial", window=(0.0, 200.0), neighbours=neighbours)
    spec = DatasetSpec(
        name="v", **LABELS, channels=slicing.channels, slicing=slicing, spacing_unit="mm"
    )
    return Dataset.create(root, spec, pd.DataFrame(rows, columns=names).assign(**columns))


def predicted(client: Any, case_id: str) -> dict[str, Any]:
    answer = client.post("/v1/cases/predict", json={"case_id": case_id}, headers=BEARER)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


@pytest.mark.parametrize("neighbours", [0, 1, 2])
def test_the_slice_itself_is_shown_and_not_its_neighbors(
    make_client: Callable[..., Any], tmp_path: Path, neighbours: int
) -> None:
    data = volume(tmp_path / "data", neighbours)
    model = {"slicing": data.spec.slicing, "channels": data.spec.channels}
    client = make_client(SETTINGS, dataset=data.root, **model)
    for number in range(SLICES):
        shown = base64.b64decode(predicted(client, f"s{number}")["image_png"])
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown))), levels(number))


def test_slices_are_averaged_along_the_axis_as_in_evaluation(
    make_client: Callable[..., Any], tmp_path: Path
) -> None:
    data = volume(tmp_path / "data")
    model: dict[str, Any] = {"slicing": data.spec.slicing, "smoothing_mm": 2.0}
    client = make_client(SETTINGS, dataset=data.root, **model)
    predictor = Maker()(lesion_free=("normal",), **model)
    rows = data.cases.sort_values("slice_index")
    evaluated = {
        name: result.confidence
        for name, result in predict_rows(predictor, data, rows)
        if not isinstance(result, Exception)
    }
    found = {name: predicted(client, name)["confidence"] for name in rows["case_id"]}
    assert found == pytest.approx(evaluated, abs=1e-6)
    alone = make_client(SETTINGS, dataset=data.root, slicing=data.spec.slicing)
    assert found["s2"] != pytest.approx(predicted(alone, "s2")["confidence"], abs=1e-3)


def test_the_label_of_a_study_is_no_label_prompt_of_its_images(tmp_path: Path) -> None:
    data = volume(tmp_path / "data", label="bright", label_level="study")
    listed = list_cases(data, {}, [], [])
    assert {(one.label, one.label_prompt) for one in listed} == {("bright", "")}
    known = Dataset(data.root, data.spec, data.cases.assign(label_level="image"))
    assert {one.label_prompt for one in list_cases(known, {}, [], [])} == {"bright"}


def test_an_image_is_found_in_the_table_as_it_is_now(tmp_path: Path) -> None:
    data = volume(tmp_path / "data")
    queue = CaseQueue(data.root, Maker()(slicing=data.spec.slicing).info)
    image = data.root / "images/2.png"
    found = queue.same_image(image)
    assert found is not None
    assert found.row["case_id"] == "s2"
    Dataset(data.root, data.spec, data.cases[data.cases["case_id"].ne("s2")]).save()
    assert queue.same_image(image) is None
