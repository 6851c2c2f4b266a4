"""Labels of volumes, from a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dxseg.data.importers.volume_dataset import write_volumes
from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume import FoundVolume
from dxseg.data.splits.known_labels import known_labels
from dxseg.data.splits.mask_budget import choose_masks
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from volume_import import bring


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_volumes_without_a_label_map_take_labels_from_the_table(lits: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        (lits / f"segmentation-{number}.nii.gz").unlink()
    csv = table(
        tmp_path,
        "volume;finding;slice;who\n"
        "volume-0;no tumour;;P1\n"
        "volume-1;tumour;;P2\n"
        "volume-1;no tumour;0;\n"
        "volume-2;no tumour;;\n"
        "volume-7;metastasis;;P9\n",
    )
    columns = {"volume_id": "volume", "label": "finding", "slice_index": "slice"}
    columns["patient_id"] = "who"
    report = bring(lits, tmp_path / "out", labels=csv, label_columns=columns)
    dataset = Dataset.load(tmp_path / "out")
    cases = dataset.cases.set_index("case_id")
    assert dataset.spec.labels == ["no tumour", "tumour"], "no label that nothing has"
    assert cases.loc["volume-1_0000", ["label", "label_level"]].tolist() == ["no tumour", "image"]
    assert cases.loc["volume-1_0001", ["label", "label_level"]].tolist() == ["tumour", "study"]
    assert cases.loc["volume-2_0004", ["label", "label_level"]].tolist() == ["no tumour", "study"]
    assert cases.loc["volume-0_0005", ["label", "label_level"]].tolist() == ["tumour", "mask"]
    people = cases.groupby("volume_id")["patient_id"].unique().map(list).to_dict()
    assert people == {"volume-0": ["P1"], "volume-1": ["P2"], "volume-2": [""]}
    targets = dict(zip(cases.index, dataset.label_targets(), strict=True))
    assert targets["volume-1_0000"] == 0
    assert targets["volume-1_0001"] == -1, "a lesion somewhere in the study says nothing of a slice"
    assert targets["volume-2_0004"] == 0
    assert any("1 rows match no volume: lines 6" in note for note in report.notes)


def test_slabs_without_a_label_map_take_labels_from_the_table(lits: Path, tmp_path: Path) -> None:
    (lits / "segmentation-1.nii.gz").unlink()
    csv = table(
        tmp_path,
        "volume_id,slab,slice_index,label\n"
        "volume-1,1,,tumour\n"
        "volume-1,0,,no tumour\n"
        "volume-1,,5,no tumour\n"
        "volume-1,,,tumour\n",
    )
    bring(lits, tmp_path / "out", labels=csv)
    dataset = Dataset.load(tmp_path / "out")
    cases = dataset.cases[dataset.cases["volume_id"] == "volume-1"]
    told = list(zip(cases["label"], cases["label_level"], strict=True))
    lower, middle = ("no tumour", "slab"), ("tumour", "slab")
    assert told == [lower] * 4 + [middle, ("no tumour", "image"), middle] + [("", "")] * 3


def test_labels_of_slabs_are_known_where_the_label_map_is_hidden(
    lits: Path, tmp_path: Path
) -> None:
    """Volume 0 has lesions in slices 4 to 6, the second slab; the table leaves out the third."""
    text = "volume_id,slab,label\nvolume-0,0,no tumour\nvolume-0,1,tumour\n"
    bring(lits, tmp_path / "out", labels=table(tmp_path, text))
    dataset = Dataset.load(tmp_path / "out")
    first = dataset.cases["volume_id"].eq("volume-0")
    levels = dataset.cases["label_level"][first]
    assert levels.tolist() == ["slab-mask"] * 7 + ["mask"] * 3
    assert dataset.image_labels[first].tolist()[3:7] == ["no tumour"] + ["tumour"] * 3

    splits = pd.DataFrame({"case_id": dataset.cases["case_id"], "group": 0, "split": "train"})
    splits["fold"] = pd.array([0] * len(splits), dtype="Int64")
    budget = {"train_masks": 0, "validation_masks": 0, "seed": 0}
    write_splits(tmp_path / "splits.csv", choose_masks(dataset, splits, **budget))
    known = known_labels(dataset, read_splits(tmp_path / "splits.csv", dataset))
    assert known.cases["label"][first].tolist() == ["no tumour"] * 4 + ["tumour"] * 3 + [""] * 3
    assert known.study_labels[first].tolist()[4:7] == ["tumour"] * 3
    assert (known.study_labels[~first][:10] == "tumour").all(), "its table has no slabs"

    every = known_labels(dataset, choose_masks(dataset, splits, **budget, label_unit="slab"))
    assert every.cases["label"][first].tolist()[7:] == ["no tumour"] * 3


def test_label_maps_that_disagree_with_the_table_are_told(lits: Path, tmp_path: Path) -> None:
    rows = [f"volume-{number},{('no tumour', 'tumour')[number]}" for number in (0, 1)]
    csv = table(tmp_path, "\n".join(["volume_id,label", *rows, ""]))
    report = bring(lits, tmp_path / "out", labels=csv)
    [told] = [note for note in report.notes if "disagree" in note]
    assert told.endswith("is used: volume-0")
    assert report.labels == {"no tumour": 24, "tumour": 6}


def test_labels_of_slices_and_slabs_that_disagree_with_the_label_map_are_told(
    lits: Path, tmp_path: Path
) -> None:
    """Volume 0 has lesions in slices 4 to 6, the second slab; nobody has judged its slice 7."""
    rows = ["0,,5,no tumour,", "0,,4,tumour,", "0,,3,tumour,", "0,1,,no tumour,", "0,0,,tumour,"]
    rows += ["0,2,,tumour,", "0,,7,tumour,", "0,,,,0-6;8-9"]
    text = "volume_id,slab,slice_index,label,annotated_slices\n"
    csv = table(tmp_path, text + "".join(f"volume-{row}\n" for row in rows))
    report = bring(lits, tmp_path / "out", labels=csv)
    told = [note.split(": ")[1] for note in report.notes if "disagree" in note]
    assert told == [
        "volume-0 slab 0, volume-0 slab 1",
        "volume-0 slice 3, volume-0 slice 5",
    ]


def test_a_lesion_in_a_label_map_has_the_diagnosis_of_the_table(lits: Path, tmp_path: Path) -> None:
    """Volumes 0 and 1 have lesions in slices 4 to 6; that of volume 2 has no label map."""
    (lits / "segmentation-2.nii.gz").unlink()
    rows = ["0,,benign", "1,,malignant", "1,0,normal", "1,4,malignant", "2,,malignant"]
    text = "volume_id,slice_index,label\n" + "".join(f"volume-{row}\n" for row in rows)
    bring(lits, tmp_path / "out", labels=table(tmp_path, text), lesion_free=["normal"])
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.labels == ["normal", "benign", "malignant"], "none that means a label map"
    cases = dataset.cases.groupby("volume_id")["label"].agg(list).to_dict()
    assert cases["volume-0"] == ["normal"] * 4 + ["benign"] * 3 + ["normal"] * 3
    assert cases["volume-1"] == ["normal"] * 4 + ["malignant"] * 3 + ["normal"] * 3
    own = dataset.cases.loc[dataset.cases["label_level"].eq("image"), "case_id"].tolist()
    assert own == ["volume-1_0000", "volume-1_0004"]

    splits = pd.DataFrame({"case_id": dataset.cases["case_id"], "group": 0, "split": "train"})
    splits["fold"] = pd.array([0] * len(splits), dtype="Int64")
    hidden = choose_masks(dataset, splits, train_masks=0, validation_masks=0, seed=0)
    known = known_labels(dataset, hidden)
    study = known.cases.assign(study=known.study_labels).groupby("volume_id")["study"].unique()
    assert study.map(list).to_dict() == {
        "volume-0": ["benign"],
        "volume-1": ["", "malignant"],
        "volume-2": ["malignant"],
    }


def test_rows_join_on_whatever_keys_they_fill_in(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1, 5, 1])

    def volume(number: int, **keys: str) -> FoundVolume:
        from dxseg.data.readers.volume import Volume

        voxels = np.random.default_rng(number).integers(0, 99, (4, 5, 2))
        return FoundVolume(f"v{number}", lambda: Volume(voxels, affine), keys=keys)

    found = [
        volume(0, patient="A", study="1", accession="x"),
        volume(1, patient="A", study="2", accession="y"),
        volume(2, patient="B", study="3", accession="z"),
        volume(3, patient="C", study="4", accession="w"),
    ]
    csv = table(
        tmp_path,
        "patient,study,accession,label\nA,2,,cyst\nB,,,normal\n,,w,cyst\nA,9,,cyst\n",
    )
    report = write_volumes(
        found,
        tmp_path / "out",
        {"name": "x"},
        slicing=Slicing(),
        labels=csv,
        lesion_free=["normal"],
    )
    dataset = Dataset.load(tmp_path / "out")
    study = dataset.cases.assign(study=dataset.study_labels).groupby("volume_id")["study"].first()
    assert study.to_dict() == {"v0": "", "v1": "cyst", "v2": "normal", "v3": "cyst"}
    assert (dataset.spec.labels, dataset.spec.lesion_free) == (["cyst", "normal"], ["normal"])
    assert any("lines 5" in note for note in report.notes)
    held = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*.*") if p.is_file())
    assert b"accession" not in held


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("volume_id,label\nvolume-0,a\nvolume-0,b\n", "rows 2 and 3 have different"),
        ("volume_id,slice_index,label\nvolume-0,1,a\nvolume-0,1,b\n", "rows 2 and 3"),
        ("volume_id,label,patient_id\nvolume-0,a,P\nvolume-0,a,Q\n", "rows 2 and 3.*patient_id"),
        ("volume_id,slice_index,label\nvolume-0,-1,a\n", "row 2: slice_index '-1'"),
        ("volume_id,slice_index,label\nvolume-0,1.0,a\n", r"slice_index '1\.0'"),
        ("volume_id,slab,label\nvolume-0,3,a\n", "row 2: slab '3': expected .* 0 to 2"),
        ("volume_id,slab,slice_index,label\nvolume-0,1,4,a\n", "no slice_index beside it"),
        ("volume_id,slab,label\nvolume-0,1,a\nvolume-0,1,b\n", "rows 2 and 3.*label of a slab"),
        ("volume_id,label\n,a\n", "row 2: has none of volume_id"),
        (
            "volume,label\nvolume-0,a\n",
            "expected label or annotated_slices, and at",
        ),
        ("volume_id,diagnosis\nvolume-0,a\n", "expected label"),
        ("volume_id,slice_index,label\nvolume-0,10,tumour\n", "slice 10.*0 to 9"),
    ],
)
def test_wrong_tables_are_refused(lits: Path, tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DxsegError, match=words):
        bring(lits, tmp_path / "out", labels=table(tmp_path, text))
    assert not (tmp_path / "out/dataset.yaml").exists()


def test_a_lesion_free_label_that_nothing_has_is_an_error(lits: Path, tmp_path: Path) -> None:
    with pytest.raises(DxsegError, match=r"'Normal': no volume.*no tumour, tumour"):
        bring(lits, tmp_path / "out", lesion_free=["no tumour", "Normal"])


def test_slices_that_nobody_annotated_are_unknown_and_not_empty(lits: Path, tmp_path: Path) -> None:
    csv = table(tmp_path, "volume_id,annotated_slices\nvolume-0,0-1;5\n")
    report = bring(lits, tmp_path / "out", labels=csv)
    cases = Dataset.load(tmp_path / "out").cases
    first = cases[cases["volume_id"].eq("volume-0")].set_index("slice_index")
    known = first.index.isin([0, 1, 5])
    assert first["label"][known].ne("").all()
    assert (first.loc[~known, ["mask", "label", "label_level"]] == "").all(axis=None)
    others = cases[cases["volume_id"].ne("volume-0")]
    assert others["label"].ne("").all()
    assert f"{(~known).sum()} slices are not annotated throughout" in "\n".join(report.notes)
    whole = bring(lits, tmp_path / "whole")
    assert not any("not annotated throughout" in note for note in whole.notes)


@pytest.mark.parametrize(("slab", "known"), [("", ""), ("1", ""), ("2", "789")])
def test_a_label_map_with_a_lesion_outweighs_a_lesion_free_label(
    lits: Path, tmp_path: Path, slab: str, known: str
) -> None:
    """The label map has lesions in slices 4 to 6, the second slab; nobody marked 4 to 9."""
    text = f"volume_id,slab,annotated_slices,label\nvolume-0,{slab},0-3,no tumour\n"
    bring(lits, tmp_path / "out", labels=table(tmp_path, text))
    dataset = Dataset.load(tmp_path / "out")
    rows = dataset.cases[dataset.has_mask & dataset.cases["volume_id"].eq("volume-0")]
    assert "".join(map(str, rows["slice_index"])) == f"0123{known}"


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ("first", "row 2: annotated_slices 'first': expected numbers of slices and ranges"),
        ("3-", "annotated_slices '3-'"),
        ("0-1;5-3", "annotated_slices '0-1;5-3'"),
        ("0-4000", "volume 'volume-0': annotated_slices has .*, but its slices are 0 to"),
    ],
)
def test_annotated_slices_that_are_none_are_refused(lits, tmp_path, slices, message) -> None:
    csv = table(tmp_path, f"volume_id,annotated_slices\nvolume-0,{slices}\n")
    with pytest.raises(DxsegError, match=message):
        bring(lits, tmp_path / "out", labels=csv)


def test_voxels_with_the_ignore_value_make_a_slice_unknown(lits: Path, tmp_path: Path) -> None:
    # Value 1 of the phantom's label maps is the liver: here, what nobody has judged.
    with_liver = bring(lits, tmp_path / "liver", mask_values={1: "liver"})
    assert with_liver.masks
    liver = Dataset.load(tmp_path / "liver").cases
    bring(lits, tmp_path / "out", ignore_value=1)
    cases = Dataset.load(tmp_path / "out").cases
    judged = liver["mask"].eq("")
    assert (cases.loc[~judged, ["mask", "label"]] == "").all(axis=None)
    assert cases.loc[judged, "label"].ne("").all()
    with pytest.raises(UsageError, match="ignore value 2: expected a value of the label maps"):
        bring(lits, tmp_path / "again", ignore_value=2)


def test_slice_labels_that_are_known_without_the_label_map(lits: Path, tmp_path: Path) -> None:
    rows = ["volume_id,slice_index,label", "volume-0,0,no tumour", ""]
    bring(lits, tmp_path / "out", labels=table(tmp_path, "\n".join(rows)))
    cases = Dataset.load(tmp_path / "out").cases
    assert cases.loc[cases["label_level"].eq("image"), "case_id"].tolist() == ["volume-0_0000"]
    bring(lits, tmp_path / "known", slice_labels_known=True)
    assert Dataset.load(tmp_path / "known").cases["label_level"].eq("image").all()
