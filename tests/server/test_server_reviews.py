"""Saved masks come back, and what people did with a case is told: readings, proposals, history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dxseg.data.table.annotations import save_mask
from dxseg.data.table.dataset import Dataset
from dxseg.io.csv_io import read_table
from dxseg.server.settings import Settings
from serving import TOKEN, squares


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return squares(tmp_path / "data").root


@pytest.fixture
def client(make_client: Any, root: Path) -> Any:
    opened = make_client(Settings(token=TOKEN), dataset=root)
    opened.headers.update({"Authorization": f"Bearer {TOKEN}"})
    return opened


def drawn(rows: slice) -> np.ndarray:
    mask = np.zeros((48, 64), np.uint8)
    mask[rows, 7:20] = 1
    return mask


def read(client: Any, **query: str) -> Any:
    return client.get("/v1/cases/mask", params=query)


def review(client: Any, **changes: str) -> Any:
    asked = {"case_id": "case0", "role": "radiologist", "kind": "confirm", **changes}
    return client.post("/v1/cases/review", json=asked)


def test_every_mask_that_a_case_had_comes_back(client: Any, root: Path) -> None:
    first = save_mask(root, "case0", drawn(slice(5, 9)), "trainee").mask
    second = save_mask(root, "case0", drawn(slice(6, 12)), "other", previous=first).mask
    for name, rows in ((first, slice(5, 9)), (second, slice(6, 12))):
        runs = read(client, case_id="case0", mask=name).json()["mask"]["class0"]
        values = np.repeat(np.arange(len(runs["counts"])) % 2, runs["counts"])
        assert np.array_equal(values.reshape(runs["size"], order="F"), drawn(rows))


@pytest.mark.parametrize(
    ("case_id", "mask"),
    [
        ("case1", ""),
        ("case1", "FIRST"),
        ("case0", "images/case0.png"),
        ("case0", "../secret.png"),
        ("nobody", "FIRST"),
    ],
)
def test_no_other_file_is_read(client: Any, root: Path, case_id: str, mask: str) -> None:
    first = save_mask(root, "case0", drawn(slice(5, 9)), "trainee").mask
    answer = read(client, case_id=case_id, mask=first if mask == "FIRST" else mask)
    assert answer.status_code == 404
    assert str(root) not in answer.text


def test_the_history_of_a_case_is_told_oldest_first(client: Any, root: Path) -> None:
    first = save_mask(root, "case0", drawn(slice(5, 9)), "trainee", model="abc", known="bright")
    assert review(client, mask=first.mask).status_code == 200
    assert review(client, mask=first.mask, kind="label", label="normal").status_code == 200
    entries = client.get("/v1/cases/history", params={"case_id": "case0"}).json()["entries"]
    told = [(one["kind"], one["role"], one["mask"], one["label"]) for one in entries]
    assert told == [
        ("mask", "trainee", first.mask, "bright"),
        ("confirm", "radiologist", first.mask, ""),
        ("label", "radiologist", first.mask, "normal"),
    ]
    assert entries[0]["model"] == "abc"
    assert client.get("/v1/cases/history", params={"case_id": "case1"}).json()["entries"] == []
    assert client.get("/v1/cases/history", params={"case_id": "nobody"}).status_code == 404


def test_a_proposal_leaves_the_table_as_it_is(client: Any, root: Path) -> None:
    before = (root / "cases.csv").read_bytes()
    assert review(client, kind="label", label="bright").status_code == 200
    assert review(client, kind="reject").status_code == 200
    assert (root / "cases.csv").read_bytes() == before
    rows = read_table(root / "reviews.csv").to_dict("records")
    assert [(row["kind"], row["label"]) for row in rows] == [("label", "bright"), ("reject", "")]


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({"case_id": "nobody", "kind": "reject"}, 404, "no case"),
        ({}, 422, "no mask to confirm"),
        ({"mask": "masks/other.png"}, 409, "open the case again"),
        ({"kind": "odd"}, 422, "kind"),
        ({"role": "Dr. Smith", "kind": "reject"}, 422, "role"),
        ({"kind": "label", "label": "odd" * 400}, 422, "normal, bright"),
        ({"kind": "label"}, 422, "normal, bright"),
    ],
)
def test_what_does_not_fit_is_refused(
    client: Any, root: Path, changes: dict[str, str], status: int, told: str
) -> None:
    answer = review(client, **changes)
    assert answer.status_code == status
    assert told in answer.json()["detail"]
    assert len(answer.json()["detail"]) < 400
    assert not (root / "reviews.csv").exists()


def test_a_log_that_leads_out_is_neither_read_nor_written(
    client: Any, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.csv").write_text("secret")
    (root / "reviews.csv").symlink_to(tmp_path / "secret.csv")
    for answer in (review(client, kind="reject"), client.get("/v1/cases")):
        assert answer.status_code == 422
        assert "leads out" in answer.json()["detail"]
        assert str(tmp_path) not in answer.text
    assert (tmp_path / "secret.csv").read_text() == "secret"


def test_a_mask_that_was_confirmed_still_belongs_to_the_dataset(client: Any, root: Path) -> None:
    done = save_mask(root, "case0", drawn(slice(5, 9)), "trainee")
    assert review(client, mask=done.mask).status_code == 200
    assert Dataset.load(root).cases["mask"][0] == done.mask
