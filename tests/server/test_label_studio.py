"""Label Studio's side of the server: requests as its MLApi makes them, and the way round."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from brightness import Maker, bright_square
from dxseg import export_label_studio
from dxseg.commands.imports import import_label_studio
from dxseg.data.exporters.brush_rle import decode_brush
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.export.label_studio import labeling_config
from dxseg.server.app import create_app
from dxseg.server.case_queue import CaseQueue
from dxseg.server.settings import Settings
from serving import TOKEN

CONFIG = labeling_config(["class0"])
HEIGHT, WIDTH = 24, 40


def basic(password: str = TOKEN) -> dict[str, str]:
    """As Label Studio shows a token: the password of a basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"any:{password}".encode()).decode()}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    rows = []
    for number, label in enumerate(("bright", "", "normal", "")):
        pixels = bright_square(HEIGHT, WIDTH, side=5 + number)[:, :, 0]
        Image.fromarray(pixels).save(root / "images" / f"i{number}.png")
        rows.append({"case_id": f"case-{number}", "image": f"images/i{number}.png", "label": label})
    spec = DatasetSpec(
        name="set", labels=["normal", "bright"], lesion_free=["normal"], mask_classes=["class0"]
    )
    return Dataset.create(root, spec, pd.DataFrame(rows)).root


@pytest.fixture
def make(dataset: Path) -> Iterator[Callable[..., TestClient]]:
    opened: list[TestClient] = []

    def make(**settings: Any) -> TestClient:
        predictor = Maker()(lesion_free=("normal",))
        cases = CaseQueue(dataset, predictor.info)
        app = create_app(predictor, Settings(token=TOKEN, **settings), cases=cases)
        client = TestClient(
            app, base_url="http://localhost", headers=basic(), raise_server_exceptions=False
        )
        opened.append(client.__enter__())
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


def asked(*case_ids: Any, config: str = CONFIG) -> dict[str, Any]:
    """What MLApi.make_predictions of Label Studio 1.23 sends."""
    tasks = [
        {
            "id": number,
            "data": {"image": "/data/local-files/?d=images/00001.png", "case_id": case_id},
            "meta": {},
            "project": 1,
            "total_annotations": 0,
            "cancelled_annotations": 0,
            "total_predictions": 0,
        }
        for number, case_id in enumerate(case_ids, 1)
    ]
    params = {"login": None, "password": None, "context": None}
    return {"tasks": tasks, "project": "1.17", "label_config": config, "params": params}


def test_a_project_is_set_up(make: Callable[..., TestClient]) -> None:
    client = make()
    assert client.get("/label-studio/health").json() == {"status": "UP"}
    sent = {
        "project": "1.17",
        "schema": CONFIG,
        "hostname": "http://localhost:8080",
        "access_token": "secret",
        "extra_params": None,
    }
    answer = client.post("/label-studio/setup", json=sent)
    assert (answer.status_code, answer.json()) == (200, {"model_version": "ab" * 6})


@pytest.mark.parametrize(
    "config",
    [
        "<View></View>",
        CONFIG.replace("class0", "tumour"),
        CONFIG.replace('toName="image"', ""),
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><View>&e;</View>',
        "<" * 1000,
    ],
)
def test_a_project_without_the_models_brush_is_told_so(
    make: Callable[..., TestClient], config: str
) -> None:
    client = make()
    for path, body in (("setup", {"schema": config}), ("predict", asked("case-1", config=config))):
        answer = client.post(f"/label-studio/{path}", json=body)
        assert answer.status_code == 422
        assert "class0" in answer.json()["detail"]
        assert "root:" not in answer.text


def test_proposals_are_what_the_predictor_says(make: Callable[..., TestClient]) -> None:
    told = make().post("/label-studio/predict", json=asked("case-1", "case-0", "case-2")).json()
    assert told["model_version"] == "ab" * 6
    images = [bright_square(HEIGHT, WIDTH, side=side) for side in (6, 5, 7)]
    expected = Maker()(lesion_free=("normal",)).predict(images, labels=["", "bright", "normal"])
    for result, prediction in zip(told["results"], expected, strict=True):
        assert result["score"] == pytest.approx(prediction.confidence, abs=1e-6)
        assert result["model_version"] == "ab" * 6
        if not prediction.mask.any():
            assert result["result"] == []
            continue
        [region] = result["result"]
        shown = {"type": "brushlabels", "from_name": "mask", "to_name": "image"}
        shown |= {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
        assert shown.items() <= region.items()
        value = region["value"]
        assert (value["format"], value["brushlabels"]) == ("rle", ["class0"])
        assert np.array_equal(decode_brush(value["rle"], HEIGHT, WIDTH), prediction.mask > 0)
    # The diagnosis that the dataset knows: lesion-free, so nothing is proposed.
    assert told["results"][2]["result"] == []
    assert told["results"][0]["result"]


def test_more_tasks_than_the_queue_holds_are_all_answered(make: Callable[..., TestClient]) -> None:
    names = ["case-1", "case-3"] * 6
    told = make(queue=1).post("/label-studio/predict", json=asked(*names)).json()
    areas = [
        decode_brush(one["result"][0]["value"]["rle"], HEIGHT, WIDTH).sum()
        for one in told["results"]
    ]
    assert areas == [areas[0], areas[1]] * 6
    assert areas[0] < areas[1]


def test_a_task_that_fails_gets_no_proposal_rather_than_an_empty_one(
    make: Callable[..., TestClient], dataset: Path
) -> None:
    (dataset / "images" / "i3.png").write_bytes(b"no image")
    client = make()
    told = client.post("/label-studio/predict", json=asked("case-3", "case-1", "odd", 5)).json()
    assert [bool(one) for one in told["results"]] == [False, True, False, False]
    assert told["results"][0] == []
    answers = [client.post("/label-studio/predict", json=asked(one)) for one in ("case-3", "odd")]
    assert [one.status_code for one in answers] == [422, 404]
    for answer in answers:
        assert str(dataset) not in answer.text


def test_the_token_is_needed_and_basic_is_for_label_studio_alone(
    make: Callable[..., TestClient],
) -> None:
    client = make()
    for headers in (basic("wrong" * 4), {"Authorization": "Basic %%%"}, {"Authorization": ""}):
        for path in ("setup", "predict"):
            answer = client.post(f"/label-studio/{path}", json={}, headers=headers)
            assert answer.status_code == 401
        assert client.get("/label-studio/health", headers=headers).status_code == 401
    assert client.get("/v1/model").status_code == 401
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/label-studio/health", headers=bearer).status_code == 200


def test_without_a_dataset_there_is_nothing_to_ask(make_client: Any) -> None:
    client = make_client(Settings(token=TOKEN))
    assert client.get("/label-studio/health", headers=basic()).status_code == 404


def test_from_cases_to_tasks_to_masks(
    cli: Any, make: Callable[..., TestClient], dataset: Path, tmp_path: Path
) -> None:
    """The way round, Label Studio's part played by hand."""
    folder = tmp_path / "tasks"
    result = cli("export", "label-studio", dataset, folder)
    assert result.exit_code == 0, result.output
    assert cli("export", "label-studio", dataset, folder).exit_code == 1
    tasks = json.loads((folder / "tasks.json").read_text())
    assert [one["data"]["case_id"] for one in tasks] == ["case-0", "case-1", "case-3"]
    for number, one in enumerate(tasks):
        place = one["data"]["image"].removeprefix("/data/local-files/?d=")
        with Image.open(folder / place) as image:
            assert image.size == (WIDTH, HEIGHT)
        one |= {"id": number, "project": 1}
    config = (folder / "labeling_config.xml").read_text()
    body = {"tasks": tasks, "project": "1.17", "label_config": config, "params": {}}
    told = make().post("/label-studio/predict", json=body).json()
    for one, proposal in zip(tasks, told["results"], strict=True):
        taken_over = {"parent_prediction": 1, "prediction": proposal | {"id": 1}}
        one["annotations"] = [{"result": proposal["result"], **taken_over}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    report = import_label_studio(tmp_path / "export.json", dataset, role="researcher")
    assert report.saved == ["case-0", "case-1", "case-3"]
    data = Dataset.load(dataset)
    assert data.has_mask.all()
    mask = read_mask(data.mask_path(data.cases.iloc[1]), 1)
    assert np.array_equal(mask > 0, bright_square(HEIGHT, WIDTH, side=6)[:, :, 0] > 127)
    assert pd.read_csv(dataset / "annotations.csv")["model"].eq("ab" * 6).all()
    with pytest.raises(Exception, match="every case has a mask"):
        export_label_studio(dataset, tmp_path / "more")
