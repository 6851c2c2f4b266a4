"""Datasets: what is written is read back, and every wrong value is named with row and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.data.table.dataset import COLUMNS, Dataset, DatasetSpec
from dxseg.data.table.words import is_missing
from dxseg.errors import DxsegError

SPEC = DatasetSpec(name="d", labels=["benign", "malignant", "normal"], lesion_free=["normal"])
YAML = "name: d\nlabels: [benign, malignant, normal]\nlesion_free: [normal]\n"


def table(rows: int = 3, **columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "case_id": [f"c{i}" for i in range(rows)],
            "image": [f"{i}.png" for i in range(rows)],
            **columns,
        }
    )


def written(folder: Path, csv: str, yaml: str = YAML) -> Path:
    (folder / "dataset.yaml").write_text(yaml, encoding="utf-8")
    (folder / "cases.csv").write_text(csv, encoding="utf-8")
    return folder


def test_missing_columns_become_empty(tmp_path: Path) -> None:
    dataset = Dataset.load(written(tmp_path, "case_id,image\na,a.png\n"))
    assert tuple(dataset.cases.columns) == COLUMNS
    row = dataset.cases.iloc[0]
    assert (row["mask"], row["label"], row["patient_id"]) == ("", "", "")
    assert np.isnan(row["spacing_y"])
    assert row["fold"] is pd.NA
    assert dataset.mask_path(row) is None


def test_text_is_never_guessed(tmp_path: Path) -> None:
    csv = "case_id,image,patient_id,volume_id\n007,a.png,1.0,1e5\nNA,b.png,08,TRUE\n"
    dataset = Dataset.load(written(tmp_path, csv))
    assert dataset.cases["case_id"].tolist() == ["007", "NA"]
    assert dataset.cases["patient_id"].tolist() == ["1.0", "08"]
    assert dataset.cases["volume_id"].tolist() == ["1e5", "TRUE"]


@pytest.mark.parametrize("column", ["patient_id", "group"])
def test_a_word_for_nothing_is_no_patient(tmp_path: Path, column: str) -> None:
    csv = f"case_id,image,{column}\na,a.png,P1\nb,b.png,NA\nc,c.png,NA\n"
    with pytest.raises(DxsegError, match=f"row 3, column {column}, value 'NA'.*empty it"):
        Dataset.load(written(tmp_path, csv))


@pytest.mark.parametrize("name", ["cases.csv", "dataset.yaml"])
def test_a_table_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "d").mkdir()
    root = written(tmp_path / "d", "case_id,image\na,a.png\n")
    (root / name).rename(tmp_path / name)
    (root / name).symlink_to(tmp_path / name)
    with pytest.raises(DxsegError, match=f"{name}: leads out of the dataset"):
        Dataset.load(root)
    (tmp_path / "link").symlink_to(root)
    (root / name).unlink()
    (tmp_path / name).rename(root / name)
    assert len(Dataset.load(tmp_path / "link")) == 1


def test_byte_order_mark_crlf_and_blank_lines(tmp_path: Path) -> None:
    written(tmp_path, "")
    (tmp_path / "cases.csv").write_bytes(b"\xef\xbb\xbfcase_id,image\r\na,a.png\r\n\r\nb,b.png\r\n")
    assert Dataset.load(tmp_path / "dataset.yaml").cases["case_id"].tolist() == ["a", "b"]


_TEXT = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\\/:"),
    min_size=1,
    max_size=12,
).filter(lambda text: not text[0].isspace() and text[0] not in ".=@+-＝＠＋－" and ".." not in text)


@given(
    ids=st.lists(_TEXT, min_size=1, max_size=5, unique=True),
    spacing=st.floats(min_value=1e-300, max_value=1e300),
    patient=_TEXT.filter(lambda text: not is_missing(text)),
    slice_index=st.none() | st.integers(0, 2**40),
)
def test_round_trip_keeps_every_value_and_the_digest(
    tmp_path_factory: pytest.TempPathFactory,
    ids: list[str],
    spacing: float,
    patient: str,
    slice_index: int | None,
) -> None:
    cases = pd.DataFrame(
        {
            "case_id": ids,
            "image": ids,
            "label": ["benign"] * len(ids),
            "patient_id": patient,
            "spacing_y": spacing,
            "spacing_x": spacing,
            "slice_index": pd.array([slice_index] * len(ids), dtype="Int64"),
        }
    )
    root = tmp_path_factory.mktemp("d")
    made = Dataset.create(root, SPEC, cases)
    read = Dataset.load(root)
    pd.testing.assert_frame_equal(read.cases, made.cases)
    assert read.spec == made.spec
    assert read.digest() == made.digest()
    assert read.cases["spacing_y"].iloc[0] == spacing


def test_digest_follows_table_and_spec_but_not_place(tmp_path: Path) -> None:
    first = Dataset(tmp_path / "a", SPEC, table(label=["benign", "", "normal"]))
    moved = SPEC.model_copy(update={"roots": ["/elsewhere"]})
    assert first.digest() == Dataset(tmp_path / "b", moved, first.cases).digest()
    relabelled = Dataset(tmp_path, SPEC, table(label=["malignant", "", "normal"]))
    renamed = Dataset(tmp_path, SPEC.model_copy(update={"name": "e"}), first.cases)
    assert len({first.digest(), relabelled.digest(), renamed.digest()}) == 3


def test_an_empty_group_column_is_neither_written_nor_part_of_the_digest(tmp_path: Path) -> None:
    plain = Dataset.create(tmp_path / "a", SPEC, table())
    assert "group" not in (tmp_path / "a" / "cases.csv").read_text().splitlines()[0]
    assert Dataset(tmp_path, SPEC, table(group=["", "", ""])).digest() == plain.digest()
    grouped = Dataset.create(tmp_path / "b", SPEC, table(group=["g", "", "g"]))
    assert grouped.digest() != plain.digest()
    assert Dataset.load(tmp_path / "b").cases["group"].tolist() == ["g", "", "g"]


def test_lesion_free_label_is_a_known_empty_mask(tmp_path: Path) -> None:
    cases = table(4, label=["benign", "normal", "", "malignant"], mask=["m.png", "", "", ""])
    dataset = Dataset(tmp_path, SPEC, cases)
    assert dataset.lesion_free.tolist() == [False, True, False, False]
    assert dataset.has_mask.tolist() == [True, True, False, False]


def test_targets_of_one_label_an_image(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, SPEC, table(4, label=["normal", "", "benign", "malignant"]))
    targets = dataset.label_targets()
    assert targets.dtype == np.int64
    assert targets.tolist() == [2, -1, 0, 1]


def test_targets_of_several_labels_an_image(tmp_path: Path) -> None:
    spec = DatasetSpec(name="d", labels=["a", "b", "n"], lesion_free=["n"], multi_label=True)
    dataset = Dataset(tmp_path, spec, table(4, label=["b; a", "", "n", "b"]))
    targets = dataset.label_targets()
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, [[1, 1, 0], [np.nan] * 3, [0, 0, 1], [0, 1, 0]])
    assert dataset.lesion_free.tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("csv", "words"),
    [
        ("case_id,image\na,a.png\na,b.png\n", ["row 3", "case_id", "'a'", "earlier row"]),
        ("case_id,image\n,a.png\n", ["row 2", "case_id", "''"]),
        ("case_id,image\n\n\n../x,a.png\n", ["row 4", "case_id", "'../x'"]),
        ("case_id,image\na,\n", ["row 2", "image", "empty"]),
        ("case_id,image\na,/etc/passwd\n", ["row 2", "image", "'/etc/passwd'", "roots"]),
        ("case_id,image\na,x/../../b.png\n", ["row 2", "image", "'..'"]),
        ("case_id,image\na,C:/b.png\n", ["row 2", "image"]),
        ("case_id,image\na,x\\b.png\n", ["row 2", "image"]),
        ("case_id,image,mask\na,b.png,../m.png\n", ["row 2", "mask", "'../m.png'"]),
        ("case_id,image,mask\na,b.png,b.png\n", ["row 2", "mask", "the image itself"]),
        ("case_id,image\na,a.png\nb,a.png\n", ["row 3", "image", "earlier row"]),
        ("case_id,image,label\na,a.png,Benign\n", ["row 2", "label", "'Benign'", "malignant"]),
        ("case_id,image,split\na,a.png,val\n", ["row 2", "split", "'val'", "validation"]),
        ("case_id,image,fold\na,a.png,-1\n", ["row 2", "fold", "'-1'"]),
        ("case_id,image,slice_index\na,a.png,1.5\n", ["row 2", "slice_index", "'1.5'"]),
        ("case_id,image,spacing_y,spacing_x\na,a.png,nan,1\n", ["row 2", "spacing_y", "'nan'"]),
        ("case_id,image,spacing_y,spacing_x\na,a.png,1,-2\n", ["row 2", "spacing_x", "'-2'"]),
        ("case_id,image,spacing_y,spacing_x\na,a.png,1,inf\n", ["row 2", "spacing_x", "'inf'"]),
        ('case_id,image,spacing_y,spacing_x\na,a.png,"0,5",1\n', ["row 2", "'0,5'"]),
        ("case_id,image,spacing_y,spacing_x\na,a.png,1,\n", ["row 2", "spacing_x", "both"]),
        ("case_id,image,spacing_y\na,a.png,1\n", ["row 2", "spacing_x", "both"]),
        ('case_id,image,patient_id\na,a.png,"p\n1"\n', ["row 2", "patient_id", "line break"]),
        ("case_id,image,labels\na,a.png,x\n", ["header", "labels", "unknown", "label"]),
        ("case_id,label\na,benign\n", ["missing", "image"]),
        ("case_id;image\na;a.png\n", ["separated by commas"]),
        ("case_id,image\n", ["no rows"]),
        ("", ["not a table"]),
        ("case_id,image\na,a.png,surplus\n", ["not a table"]),
        ("case_id,image\na,a.png\nb,b.png,surplus\n", ["not a table", "line 3"]),
    ],
)
def test_wrong_tables_are_refused_with_place_and_remedy(
    tmp_path: Path, csv: str, words: list[str]
) -> None:
    with pytest.raises(DxsegError) as caught:
        Dataset.load(written(tmp_path, csv))
    message = str(caught.value)
    assert "cases.csv" in message
    for word in words:
        assert word in message


def test_a_wrong_spacing_is_told_once(tmp_path: Path) -> None:
    csv = "case_id,image,spacing_y,spacing_x\na,a.png,x,1\n"
    with pytest.raises(DxsegError, match="1 wrong value"):
        Dataset.load(written(tmp_path, csv))


def test_ten_problems_are_listed_and_all_counted(tmp_path: Path) -> None:
    with pytest.raises(DxsegError) as caught:
        Dataset(tmp_path, SPEC, table(500, label=["tumour"] * 500))
    message = str(caught.value)
    assert message.count("row ") == 10
    assert "500 wrong value(s)" in message
    assert "and 490 more" in message


def test_contradicting_labels_are_refused(tmp_path: Path) -> None:
    spec = DatasetSpec(name="d", labels=["a", "n"], lesion_free=["n"], multi_label=True)
    with pytest.raises(DxsegError, match="lesion-free label beside another"):
        Dataset(tmp_path, spec, table(1, label=["a;n"]))


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("name: d\nlabels: [no, yes]\n", ["labels.0", "quotes"]),
        ("name: d\n", ["labels", "required"]),
        ("name: d\nlabels: [a, a]\n", ["labels", "twice"]),
        ("name: d\nlabels: [a]\nlesion_free: [b]\n", ["lesion_free", "'b'"]),
        ("name: d\nlabels: [a]\nlesionfree: [a]\n", ["lesionfree", "unknown field"]),
        ("name: d\nlabels: [a]\nchannels: 0\n", ["channels", "0"]),
        ("name: d\nlabels: [a;b]\nmulti_label: true\n", ["';'"]),
        ("name: d\nlabels: [a\n", ["not valid YAML"]),
        ("- 1\n", ["expected fields"]),
        ("!!python/object/apply:os.system ['true']\n", ["not valid YAML"]),
    ],
)
def test_wrong_specifications_are_refused(tmp_path: Path, yaml: str, words: list[str]) -> None:
    with pytest.raises(DxsegError) as caught:
        Dataset.load(written(tmp_path, "case_id,image\na,a.png\n", yaml))
    for word in ["dataset.yaml", *words]:
        assert word in str(caught.value)


def test_absent_files_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DxsegError, match="dxseg import"):
        Dataset.load(tmp_path)
    (tmp_path / "dataset.yaml").write_text(YAML)
    with pytest.raises(DxsegError, match=r"cases\.csv"):
        Dataset.load(tmp_path)


def test_latin_1_is_refused_with_a_remedy(tmp_path: Path) -> None:
    written(tmp_path, "")
    (tmp_path / "cases.csv").write_bytes("case_id,image\nä,a.png\n".encode("latin-1"))
    with pytest.raises(DxsegError, match="UTF-8"):
        Dataset.load(tmp_path)


def test_paths_are_sought_in_the_folder_then_in_roots(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    for folder in (home, other):
        folder.mkdir()
    (home / "0.png").touch()
    (other / "0.png").touch()
    (other / "1.png").touch()
    spec = SPEC.model_copy(update={"roots": ["../other"]})
    dataset = Dataset(home, spec, table(3, mask=["", "0.png", ""]))
    rows = list(dataset.cases.itertuples())
    assert dataset.image_path(rows[0]) == (home / "0.png").resolve()
    assert dataset.image_path(dataset.cases.iloc[1]) == (other / "1.png").resolve()
    assert dataset.mask_path(dataset.cases.iloc[1]) == (home / "0.png").resolve()
    with pytest.raises(DxsegError, match=r"'c2', column image, value '2\.png': no such file"):
        dataset.image_path(rows[2])


def test_links_out_of_the_roots_are_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "secret.png").touch()
    (home / "0.png").symlink_to(tmp_path / "secret.png")
    dataset = Dataset(home, SPEC, table(1))
    with pytest.raises(DxsegError, match="outside the dataset"):
        dataset.image_path(dataset.cases.iloc[0])
    allowed = Dataset(home, SPEC.model_copy(update={"roots": [".."]}), table(1))
    assert allowed.image_path(allowed.cases.iloc[0]) == (tmp_path / "secret.png").resolve()


def test_nothing_is_written_when_validation_fails(tmp_path: Path) -> None:
    with pytest.raises(DxsegError):
        Dataset.create(tmp_path / "new", SPEC, table(1, label=["x"]))
    assert not (tmp_path / "new").exists()


def test_a_hundred_thousand_rows_load_in_seconds(tmp_path: Path) -> None:
    rows = 100_000
    labels = np.array(["normal", "benign", ""])[np.arange(rows) % 3].tolist()
    made = Dataset.create(tmp_path, SPEC, table(rows, label=labels))
    read = Dataset.load(tmp_path)
    assert len(read) == rows
    assert read.digest() == made.digest()
    assert int(read.lesion_free.sum()) == -(-rows // 3)


def test_properties_of_the_table_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset(tmp_path, SPEC, table())
    for name in ("lesion_free", "has_mask", "image_labels", "study_labels", "studies"):
        assert getattr(dataset, name) is getattr(dataset, name)
    digest = dataset.digest()
    monkeypatch.setattr("dxseg.data.table.dataset._csv", lambda _: pytest.fail("computed again"))
    assert dataset.digest() == digest
