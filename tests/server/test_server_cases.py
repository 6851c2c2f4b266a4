"""The routes of a dataset: the queue, proposals, saving, and what is refused."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brightness import Maker
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.records import ROLES
from dxseg.errors import DxsegError, UsageError
from dxseg.server.app import create_app
from dxseg.server.case_queue import CaseQueue
from dxseg.server.settings import Settings
from serving import TOKEN, png, sent, squares

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return squares(tmp_path / "data").root


@pytest.fixture
def client(make_client: Any, root: Path) -> Any:
    opened = make_client(Settings(token=TOKEN), dataset=root)
    opened.headers.update(BEARER)
    return opened


def runs(*counts: int, size: tuple[int, int] = (48, 64)) -> dict[str, Any]:
    return {"class0": {"size": size, "counts": counts}}


FIRST_COLUMN = runs(0, 48, 48 * 63)


def save(client: Any, **changes: Any) -> Any:
    asked = {"case_id": "case0", "role": "radiologist", "mask": FIRST_COLUMN, **changes}
    return client.post("/v1/cases/mask", json=asked)


def test_a_dataset_is_never_served_without_a_token(root: Path) -> None:
    predictor = Maker()()
    with pytest.raises(UsageError, match="token"):
        create_app(predictor, Settings(), cases=CaseQueue(root, predictor.info))


def test_without_the_token_no_case_is_told(client: Any) -> None:
    client.headers.pop("Authorization")
    for answer in (
        client.get("/v1/cases"),
        client.post("/v1/cases/predict", json={"case_id": "case0"}),
        save(client),
    ):
        assert answer.status_code == 401
        assert "case0" not in answer.text


def test_pages_of_other_sites_cannot_save(client: Any, root: Path) -> None:
    client.headers["Origin"] = "http://evil.example"
    assert save(client).status_code == 403
    assert not (root / "annotations.csv").exists()


def test_the_queue_holds_what_has_no_mask(client: Any) -> None:
    told = client.get("/v1/cases").json()
    assert [one["case_id"] for one in told["cases"]] == ["case0", "case1", "case2"]
    assert told["waiting"] == 3
    assert len(client.get("/v1/cases?limit=1").json()["cases"]) == 1
    assert client.get("/v1/model").json()["dataset"] == "squares"


def test_suggestions_come_first_by_rank(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "suggestions.csv"
    table.write_text("case_id,rank,score\ncase2,2,0.5\ncase1,1,0.9\n")
    waiting = CaseQueue(root, Maker()().info, table).waiting()
    assert [(one.case_id, one.score) for one in waiting] == [
        ("case1", 0.9),
        ("case2", 0.5),
        ("case0", None),
    ]
    for text, told in (
        ("case_id,rank\ncase1,1\n", "score"),
        ("case_id,rank,score\nother,1,1\n", "'other'"),
        ("case_id,rank,score\ncase1,first,1\n", "row 2"),
    ):
        table.write_text(text)
        with pytest.raises(DxsegError, match=told):
            CaseQueue(root, Maker()().info, table)


def test_a_model_of_other_classes_is_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="mask classes"):
        CaseQueue(root, Maker()(channels=2, classes=2).info)


def test_a_proposal_has_all_that_the_page_shows(client: Any) -> None:
    told = client.post("/v1/cases/predict", json={"case_id": "case1"}).json()
    assert told["case"] == {"case_id": "case1", "label": "", "mask": ""}
    assert told["image"] == {"height": 48, "width": 64, "spacing_mm": [0.5, 0.5]}
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(told["image_png"]))))
    assert picture.shape == (48, 64)
    assert picture[12, 35] == 240
    assert set(told["evidence"]) == {"normal", "bright"}
    healthy = {"case_id": "case1", "label_prompt": "normal"}
    assert client.post("/v1/cases/predict", json=healthy).json()["area"]["class0"]["pixels"] == 0


def test_an_upload_is_known_by_its_bytes(client: Any, root: Path) -> None:
    content = (root / "images/case2.png").read_bytes()
    fields = {"return_image": "true"}
    known = client.post("/v1/predict", **sent(content), data=fields).json()
    other = client.post("/v1/predict", **sent(png()), data=fields).json()
    assert (known["case"]["case_id"], other["case"]) == ("case2", None)
    assert known["image"]["spacing_mm"] == [0.5, 0.5]
    assert client.post("/v1/predict", **sent(content)).json()["image_png"] is None


def test_saving_gives_the_case_a_mask(client: Any, root: Path) -> None:
    answer = save(client, label_prompt="bright")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["pixels"], told["waiting"]) == ({"class0": 48}, 2)
    dataset = Dataset.load(root)
    assert dataset.cases["mask"][0] == told["case"]["mask"]
    mask = read_mask(dataset.mask_path(dataset.cases.iloc[0]), 1)
    assert mask[:, 0].all()
    assert not mask[:, 1:].any()
    assert "case0" not in client.get("/v1/cases").text
    assert save(client).status_code == 409
    assert save(client, previous=told["case"]["mask"]).status_code == 200


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"case_id": "nobody"}, 404),
        ({"case_id": "../../etc/passwd"}, 404),
        ({"case_id": "x" * 150}, 404),
        ({"case_id": "x" * 10_000}, 422),
        ({"label_prompt": "x" * 10_000}, 422),
        ({"role": "Dr. Smith"}, 422),
        ({"label_prompt": "unheard"}, 422),
        ({"mask": {}}, 422),
        ({"mask": {"other": FIRST_COLUMN["class0"]}}, 422),
        ({"mask": runs(48 * 64, size=(64, 48))}, 422),
        ({"mask": runs(48 * 64 + 1)}, 422),
        ({"mask": runs(-1, 48 * 64 + 1)}, 422),
        ({"mask": runs(10**30)}, 422),
        ({"mask": runs(0, 0, size=(0, 0))}, 422),
        ({"mask": runs(10**12, size=(10**6, 10**6))}, 413),
        ({"case_id": "case3"}, 422),
    ],
)
def test_what_does_not_fit_is_refused(
    client: Any, root: Path, changes: dict[str, Any], status: int
) -> None:
    before = (root / "cases.csv").read_bytes()
    answer = save(client, **changes)
    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "application/problem+json",
    )
    assert str(root) not in answer.text
    assert len(answer.json()["detail"]) < 400
    assert (root / "cases.csv").read_bytes() == before
    assert not (root / "annotations.csv").exists()
    assert not (root / "masks").exists()


def test_forms_and_endless_json_are_refused(client: Any, root: Path) -> None:
    as_text = {"content": '{"case_id": "case0"}', "headers": {"Content-Type": "text/plain"}}
    assert client.post("/v1/cases/mask", **as_text).status_code == 422
    kind = {"Content-Type": "application/json"}
    large = b'{"mask": [' + b"1," * 3 * 2**20
    assert client.post("/v1/cases/mask", content=large, headers=kind).status_code == 413
    assert client.post("/v1/cases/mask", content=b"{", headers=kind).status_code in (400, 422)


def test_classes_may_not_overlap(make_client: Any, tmp_path: Path) -> None:
    dataset = squares(tmp_path / "two")
    dataset.spec = dataset.spec.model_copy(update={"mask_classes": ["class0", "class1"]})
    dataset.save()
    settings = Settings(token=TOKEN)
    client = make_client(settings, dataset=dataset.root, channels=2, classes=2)
    client.headers.update(BEARER)
    one = FIRST_COLUMN["class0"]
    other = runs(48, 48, 48 * 62)["class0"]
    assert save(client, mask={"class0": one, "class1": one}).status_code == 422
    answer = save(client, mask={"class0": one, "class1": other})
    assert answer.json()["pixels"] == {"class0": 48, "class1": 48}
    mask = read_mask(dataset.root / answer.json()["case"]["mask"], 2)
    assert mask[7, :3].tolist() == [1, 2, 0]


def test_the_page_offers_the_roles_that_are_kept() -> None:
    from dxseg.server.app import WEB

    page = (WEB / "index.html").read_text("utf-8")
    assert [role for role in ROLES if f"<option>{role}</option>" not in page] == []
