"""The work list: states, filters, what comes next, and cases that somebody else has open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dxseg.data.table.annotations import save_mask
from dxseg.data.table.reviews import save_review
from dxseg.server.claims import Claims
from dxseg.server.settings import Settings
from dxseg.server.work_list import CaseFilter, ListedCase, next_case
from serving import TOKEN, squares, volumes

EMPTY = np.zeros((48, 64), np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return squares(tmp_path / "data", 6).root


@pytest.fixture
def client(make_client: Any, root: Path) -> Any:
    opened = make_client(Settings(token=TOKEN), dataset=root)
    opened.headers.update({"Authorization": f"Bearer {TOKEN}"})
    return opened


def listed(client: Any, **query: Any) -> list[str]:
    answer = client.get("/v1/cases", params=query)
    assert answer.status_code == 200, answer.text
    return [one["case_id"] for one in answer.json()["cases"]]


def following(client: Any, **query: Any) -> str | None:
    case = client.get("/v1/cases/next", params=query).json()["case"]
    return None if case is None else case["case_id"]


def test_each_case_has_one_state(client: Any, root: Path) -> None:
    drawn = save_mask(root, "case0", EMPTY, "trainee").mask
    confirmed = save_mask(root, "case1", EMPTY, "trainee").mask
    save_review(root, "case1", "confirm", "radiologist", mask=confirmed)
    save_review(root, "case2", "cannot-tell", "trainee")
    save_review(root, "case3", "reject", "trainee")
    save_review(root, "case3", "reopen", "radiologist")
    told = client.get("/v1/cases", params={"state": "any"}).json()
    assert {one["case_id"]: one["state"] for one in told["cases"]} == {
        "case0": "drawn",
        "case1": "confirmed",
        "case2": "set-aside",
        "case3": "waiting",
        "case4": "waiting",
        "case5": "given",
    }
    assert told["states"] == {
        "waiting": 2, "drawn": 1, "confirmed": 1, "given": 1, "set-aside": 1,
    }  # fmt: skip
    assert listed(client) == ["case3", "case4"], "the default"
    save_mask(root, "case1", EMPTY, "radiologist", previous=confirmed)
    assert listed(client, state="drawn") == ["case0", "case1"], "the new mask is not confirmed"
    save_review(root, "case0", "cannot-tell", "radiologist", mask=drawn)
    assert listed(client, state="set-aside") == ["case0", "case2"]


def test_cases_are_found_by_name_and_label_page_by_page(client: Any) -> None:
    every = [f"case{number}" for number in range(6)]
    assert listed(client, state="any") == every
    assert listed(client, state="any", offset=4, limit=10) == every[4:]
    assert listed(client, state="any", offset=1, limit=2) == every[1:3]
    assert listed(client, state="any", search="SE3") == ["case3"]
    assert listed(client, state="any", label="normal") == ["case5"]
    assert listed(client, state="any", label="") == every[:5]
    told = client.get("/v1/cases", params={"limit": 1, "search": "case"}).json()
    assert (told["total"], told["waiting"], len(told["cases"])) == (5, 5, 1)
    assert told["labels"] == ["", "normal"]
    assert client.get("/v1/cases?state=odd").status_code == 422


def test_next_goes_on_after_the_last_one_and_round(client: Any, root: Path) -> None:
    assert following(client) == "case0"
    assert following(client, after="case0") == "case1"
    save_mask(root, "case1", EMPTY, "other")
    assert following(client, after="case1") == "case2", "a case that waits no more has a place"
    assert following(client, after="case4") == "case0"
    assert following(client, after="nobody") == "case0"
    assert following(client, state="drawn", after="case1") is None
    assert following(client, search="nothing") is None


def test_a_case_that_another_has_open_is_passed_over(client: Any) -> None:
    opened = {"case_id": "case0", "reader": "one"}
    assert client.post("/v1/cases/predict", json=opened).status_code == 200
    assert following(client, reader="one") == "case0"
    assert following(client, reader="two") == "case1"
    cases = client.get("/v1/cases?reader=two").json()["cases"]
    assert [one["case_id"] for one in cases if one["taken"]] == ["case0"]
    client.post("/v1/cases/predict", json={"case_id": "case3", "reader": "one"})
    assert following(client, reader="two") == "case0", "nobody has two cases open"
    sent = {"case_id": "case3", "role": "other", "kind": "cannot-tell", "reader": "one"}
    assert client.post("/v1/cases/review", json=sent).status_code == 200
    cases = client.get("/v1/cases?reader=two&state=any").json()["cases"]
    assert not any(one["taken"] for one in cases)


def test_claims_end_and_are_bounded() -> None:
    claims = Claims(seconds=0)
    claims.claim("one", "a")
    assert claims.others("two") == frozenset(), "they end"
    claims = Claims()
    claims.claim("", "a")
    for number in range(5000):
        claims.claim(f"reader{number}", f"case{number}")
    assert len(claims.others("")) == 1000
    assert "case4999" in claims.others("")
    claims.release("reader4999")
    assert "case4999" not in claims.others("")


def test_every_case_comes_up_once_a_round() -> None:
    cases = [ListedCase(f"c{number}", "", None, "waiting") for number in range(137)]
    after, seen = "", []
    for _ in cases:
        found = next_case(cases, after, CaseFilter("waiting"), frozenset())
        assert found is not None
        after = found.case_id
        seen.append(after)
    assert seen == [case.case_id for case in cases]


def test_the_slices_of_a_volume_are_one_entry(make_client: Any, tmp_path: Path) -> None:
    root = volumes(tmp_path / "volumes").root
    client = make_client(Settings(token=TOKEN), dataset=root)
    client.headers.update({"Authorization": f"Bearer {TOKEN}"})
    told = client.get("/v1/cases").json()
    assert [(one["case_id"], one["volume_id"], one["slices"]) for one in told["cases"]] == [
        ("right3", "right", 6),
        ("left3", "left", 6),
        ("single", "", 1),
    ], "the slice in the middle is shown first"
    assert told["waiting"] == 3
    found = client.get("/v1/cases/volume", params={"case_id": "left5"}).json()
    assert found["entry"] == "left3"
    assert [one["case_id"] for one in found["slices"]] == [f"left{number}" for number in range(6)]
    for number in range(5):
        save_mask(root, f"left{number}", EMPTY, "trainee")
    [left] = client.get("/v1/cases", params={"search": "LEFT"}).json()["cases"]
    assert (left["state"], left["left"]) == ("waiting", 1)
    save_mask(root, "left5", EMPTY, "trainee")
    assert listed(client, state="drawn") == ["left3"]
    assert following(client, after="right3") == "single"


def test_a_volume_is_in_other_hands_by_any_of_its_slices(make_client: Any, tmp_path: Path) -> None:
    client = make_client(Settings(token=TOKEN), dataset=volumes(tmp_path / "volumes").root)
    client.headers.update({"Authorization": f"Bearer {TOKEN}"})
    client.post("/v1/cases/predict", json={"case_id": "right0", "reader": "somebody"})
    assert following(client) == "left3"
    assert following(client, reader="somebody") == "right3"


def test_a_volume_starts_at_the_slice_that_is_suggested_first(
    make_client: Any, tmp_path: Path
) -> None:
    from brightness import Maker
    from dxseg.server.case_queue import CaseQueue

    root = volumes(tmp_path / "volumes").root
    table = tmp_path / "suggestions.csv"
    table.write_text("case_id,rank,score\nleft1,1,0.9\nright2,2,0.5\nleft4,3,0.1\n")
    queue = CaseQueue(root, Maker()().info, table)
    assert [case.case_id for case in queue.listed()] == ["left1", "right2", "single"]


def test_a_case_that_is_not_listed_has_no_volume(make_client: Any, tmp_path: Path) -> None:
    client = make_client(Settings(token=TOKEN), dataset=volumes(tmp_path / "volumes").root)
    client.headers.update({"Authorization": f"Bearer {TOKEN}"})
    assert client.get("/v1/cases/volume", params={"case_id": "nobody"}).status_code == 404
    single = client.get("/v1/cases/volume", params={"case_id": "single"}).json()
    assert [one["case_id"] for one in single["slices"]] == ["single"]
