"""`dxseg suggest`: whom it looks at, what it writes, how it fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import dxseg
from brightness import Maker, bright_square
from dxseg.active_learning.suggest import COLUMNS, rank_candidates, score_rows, select_rows
from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.errors import UsageError

Cli = Callable[..., Any]
DARK = np.full((32, 32, 1), 10, np.uint8)
SPEC = DatasetSpec(name="squares", labels=["normal", "bright"], lesion_free=["normal"])


def make(root: Path, pictures: dict[str, np.ndarray], **columns: list[str]) -> Dataset:
    """A dataset of images that belong to nobody."""
    root.mkdir(exist_ok=True)
    for name, pixels in pictures.items():
        Image.fromarray(pixels[:, :, 0]).save(root / f"{name}.png")
    table = pd.DataFrame({"case_id": list(pictures), **columns})
    table["image"] = table["case_id"] + ".png"
    return Dataset.create(root, SPEC, table)


def test_masks_that_are_known_and_cases_of_other_splits_are_no_candidates(tmp_path: Path) -> None:
    names = ["drawn", "normal", "free", "held out", "validates", "open", "no label"]
    data = make(
        tmp_path,
        dict.fromkeys(names, DARK),
        mask=["m.png", "", "", "", "", "", ""],
        label=["bright", "normal", "normal", "bright", "", "bright", ""],
        split=["train", "train", "train", "test", "validation", "train", "train"],
        patient_id=[*"abcdefg"],
    )
    rows = select_rows(data, None)
    assert rows["case_id"].tolist() == ["drawn", "open", "no label"]
    assert rows["annotated"].tolist() == [True, False, False]


def test_a_table_of_splits_hides_masks_and_defines_the_training_cases(tmp_path: Path) -> None:
    data = make(
        tmp_path,
        dict.fromkeys("abcd", DARK),
        mask=["m.png", "n.png", "o.png", ""],
        label=["bright"] * 4,
    )
    splits = tmp_path / "splits.csv"
    splits.write_text(
        "case_id,group,split,fold,use_mask\n"
        "a,0,train,0,True\nb,1,train,0,False\nc,2,test,,True\nd,3,train,0,False\n"
    )
    rows = select_rows(data, splits)
    assert rows["case_id"].tolist() == ["a", "b", "d"]
    assert rows["annotated"].tolist() == [True, False, False]
    with pytest.raises(UsageError, match="nothing to annotate"):
        select_rows(Dataset(tmp_path, SPEC, data.cases.iloc[:3]), None)


def test_scores_follow_what_the_table_knows(tmp_path: Path) -> None:
    pictures = {
        "found": bright_square(32, 32),
        "missed": DARK,
        "unknown": DARK,
        "broken": DARK,
        "annotated": bright_square(32, 32, side=20),
    }
    data = make(
        tmp_path,
        pictures,
        label=["bright", "bright", "", "bright", "bright"],
        patient_id=[*"abcde"],
        mask=["", "", "", "", "m.png"],
    )
    (tmp_path / "broken.png").write_bytes(b"no image")
    steps: list[tuple[int, int]] = []
    seen = score_rows(
        Maker()(lesion_free=("normal",)),
        data,
        select_rows(data, None),
        lambda *step: steps.append(step),
    )
    assert seen.case_ids == ["found", "missed", "unknown"]
    assert [name for name, _ in seen.failed] == ["broken"]
    assert len(seen.annotated) == 1
    assert steps == [(done, 5) for done in range(1, 6)]
    scores = dict(zip(seen.case_ids, (score.score for score in seen.scores), strict=True))
    assert scores["missed"] == 1
    assert scores["found"] == pytest.approx(0, abs=0.05)
    assert scores["unknown"] == pytest.approx(0, abs=0.01), "no label names a lesion"
    table = rank_candidates(seen, 3, seed=0)
    assert table["case_id"].iloc[0] == "missed"
    assert table["rank"].tolist() == [1, 2, 3]


def test_volumes_are_suggested_once_and_counted_as_one(tmp_path: Path) -> None:
    """Of a volume its slice with the highest score stands, of those whose mask is unknown."""
    lesions = {"a1": 8, "b0": 6, "b2": 20, "c1": 14}
    names = [f"{volume}{index}" for volume in "abc" for index in range(3)] + ["alone"]
    pictures = {
        name: bright_square(32, 32, side=lesions[name]) if name in lesions else DARK
        for name in names
    }
    data = make(
        tmp_path,
        pictures,
        mask=["", "m.png", *[""] * 8],
        label=["normal", "", "normal", *[""] * 7],
        volume_id=[*"aaabbbccc", ""],
        slice_index=["0", "1", "2"] * 3 + [""],
        patient_id=[*"aaabbbcccd"],
    )
    rows = select_rows(data, None)
    assert rows["case_id"].tolist() == ["a1", "b0", "b1", "b2", "c0", "c1", "c2", "alone"]
    pool = score_rows(Maker()(lesion_free=("normal",)), data, rows)
    assert len(pool.annotated) == 1
    assert len(pool.case_ids) == 7
    table = rank_candidates(pool, 5, seed=0)
    assert sorted(table["volume_id"]) == ["", "b", "c"]
    scores = dict(zip(pool.case_ids, (score.score for score in pool.scores), strict=True))
    for row in table.to_dict("records"):
        if row["volume_id"]:
            own = [score for name, score in scores.items() if name[0] == row["volume_id"]]
            assert scores[row["case_id"]] == max(own)
    assert len(rank_candidates(pool, 2, seed=0)) == 2


def test_unmarked_slices_of_a_partly_annotated_volume_are_candidates(tmp_path: Path) -> None:
    data = make(
        tmp_path,
        dict.fromkeys(["drawn", "empty", "unlabelled", "unknown", "held out"], DARK),
        mask=["m.png", "", "", "", ""],
        label=["bright", "normal", "", "bright", ""],
        volume_id=[*"aaaab"],
        slice_index=[*"01230"],
        split=["train"] * 4 + ["test"],
    )
    rows = select_rows(data, None)
    assert rows["case_id"][~rows["annotated"]].tolist() == ["unlabelled", "unknown"]


def test_near_duplicates_are_suggested_once(
    cli: Cli, trained: Path, phantoms: Path, tmp_path: Path
) -> None:
    names = [f"phantom_{number:04d}" for number in (1, 2, 3)]
    pictures = {}
    for name in names:
        pixels = np.asarray(Image.open(phantoms / "images" / f"{name}.png"))[:, :, None]
        pictures |= {name: pixels, f"{name}_brighter": pixels // 2 + 60}
    make(tmp_path / "data", pictures, label=[""] * 6)
    out = tmp_path / "new" / "suggestions.csv"
    result = cli("suggest", trained, tmp_path / "data", "--out", out, "--count", 5)
    assert result.exit_code == 0, result.output
    assert "3 of 6 cases" in result.output
    assert "near-duplicates" in result.output
    found = pd.read_csv(out)["case_id"]
    assert sorted(found.str[:12]) == names
    assert [path.name for path in out.parent.iterdir()] == ["suggestions.csv"]


def test_the_table_names_training_cases_without_a_mask(
    cli: Cli, trained: Path, phantoms: Path, tmp_path: Path
) -> None:
    words = ["--splits", trained / "splits.csv", "--count", 4, "--seed", 3]
    result = cli("suggest", trained, phantoms, "--out", tmp_path / "a.csv", *words)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "a.csv")
    assert table.columns.tolist() == list(COLUMNS)
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert table[["score", "uncertainty", "disagreement"]].stack().between(0, 1).all()
    data = Dataset.load(phantoms)
    splits = read_splits(trained / "splits.csv", data).set_index("case_id").loc[table["case_id"]]
    assert splits["split"].eq("train").all()
    assert not splits["use_mask"].any()
    assert splits["group"].is_unique
    again = dxseg.suggest(
        trained / "model", phantoms, output=tmp_path / "b.csv", count=4, seed=3, splits=words[1]
    )
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()
    assert again.table["case_id"].tolist() == table["case_id"].tolist()
    assert again.failed == []


def test_what_has_been_annotated_is_not_suggested_again(
    trained: Path, phantoms: Path, tmp_path: Path
) -> None:
    """The loop of docs/suggest.md, without the training."""
    original = Dataset.load(phantoms)
    splits = read_splits(trained / "splits.csv", original)
    known = splits["use_mask"].to_numpy()
    copy = shutil.copytree(phantoms, tmp_path / "data")
    Dataset.create(
        copy, original.spec, original.cases.assign(mask=original.cases["mask"].where(known, ""))
    )
    table = splits.drop(columns="use_mask")
    table.to_csv(tmp_path / "splits.csv", index=False)
    options = {"count": 3, "splits": tmp_path / "splits.csv"}
    first = dxseg.suggest(trained, copy, output=tmp_path / "first.csv", **options).table["case_id"]
    known = known | splits["case_id"].isin(first).to_numpy()
    Dataset.create(
        copy, original.spec, original.cases.assign(mask=original.cases["mask"].where(known, ""))
    )
    second = dxseg.suggest(trained, copy, output=tmp_path / "second.csv", **options)
    assert second.candidates == (~known & splits["split"].eq("train")).sum()
    assert not set(first) & set(second.table["case_id"])


def test_an_unreadable_image_is_reported_and_does_not_stop_the_others(
    cli: Cli, trained: Path, phantoms: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(phantoms, tmp_path / "data")
    splits = read_splits(trained / "splits.csv", Dataset.load(copy))
    lesions = ~Dataset.load(copy).lesion_free.to_numpy()
    hidden = splits[splits["split"].eq("train") & ~splits["use_mask"] & lesions]["case_id"]
    (copy / "images" / f"{hidden.iloc[0]}.png").write_bytes(b"")
    words = ["--splits", trained / "splits.csv", "--count", 50, "--out", tmp_path / "a.csv"]
    result = cli("suggest", trained, copy, *words)
    assert result.exit_code == 1
    assert f"error: {hidden.iloc[0]}: " in result.stderr
    assert sorted(pd.read_csv(tmp_path / "a.csv")["case_id"]) == sorted(hidden.iloc[1:])
    for case_id in hidden:
        (copy / "images" / f"{case_id}.png").write_bytes(b"")
    result = cli("suggest", trained, copy, *words)
    assert result.exit_code == 1
    assert f"none of {len(hidden)} images" in result.stderr


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("", ["--count", 0], "count 0"),
        ("exported.onnx", [], "folder of the run"),
        ("", [], "nothing to annotate"),
    ],
)
def test_errors_are_reported_in_one_line(
    cli: Cli, trained: Path, phantoms: Path, tmp_path: Path, model: str, options: Any, expected: str
) -> None:
    result = cli("suggest", trained / model, phantoms, "--out", tmp_path / "a.csv", *options)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []
