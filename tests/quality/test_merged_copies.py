"""What `--fix` does with copies of one file: links, labels and slices that must survive it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dxseg.data.table.dataset import Dataset


def copy(folder: Any, case: str, original: str, **values: Any) -> None:
    (folder.root / f"{case}.png").write_bytes((folder.root / f"{original}.png").read_bytes())
    folder.set(case, **values)


def fixed(folder: Any, tmp_path: Path) -> tuple[Any, Any]:
    """The actions, and the rows of the copy by case_id."""
    repair = folder.check(output=tmp_path / "report", fix=tmp_path / "fixed").repair
    return repair, Dataset.load(tmp_path / "fixed").cases.set_index("case_id")


def test_a_dropped_copy_still_links_its_patient(folder: Any, tmp_path: Path) -> None:
    copy(folder, "e2", "c2", patient_id="c4", label="benign")
    repair, rows = fixed(folder, tmp_path)
    assert "e2" not in rows.index
    assert rows.loc["c2", "patient_id"] == "c2"
    assert rows.loc["c2", "group"] == rows.loc["c4", "group"] != rows.loc["c3", "group"]
    assert ("group", ["c2", "c4"]) in [(one.action, one.case_ids) for one in repair.actions]


def test_the_patient_and_the_group_of_a_copy_are_kept(folder: Any, tmp_path: Path) -> None:
    folder.set("c2", patient_id="", label="")
    copy(folder, "e2", "c2", patient_id="P9", group="site", label="malignant", label_level="study")
    folder.set("c3", group="site")
    _, rows = fixed(folder, tmp_path)
    assert rows.loc["c2", ["patient_id", "label", "label_level"]].tolist() == [
        "P9",
        "malignant",
        "study",
    ]
    assert rows.loc["c2", "group"] == rows.loc["c3", "group"]


def test_the_label_of_another_patients_study_is_not_taken(folder: Any, tmp_path: Path) -> None:
    folder.set("c2", label="")
    copy(folder, "e2", "c2", patient_id="P9", label="malignant", label_level="study")
    _, rows = fixed(folder, tmp_path)
    assert rows.loc["c2", ["label", "label_level"]].tolist() == ["", ""]


@pytest.mark.parametrize("patient", ["c0", "P9"])
def test_a_lesion_is_not_merged_into_a_lesion_free_row(
    folder: Any, tmp_path: Path, patient: str
) -> None:
    folder.image("e0_mask.png", folder.disc())
    copy(folder, "e0", "c0", patient_id=patient, mask="e0_mask.png")
    repair, rows = fixed(folder, tmp_path)
    assert not {"c0", "e0"} & set(rows.index)
    assert ("drop", ["c0", "e0"]) in [(one.action, one.case_ids) for one in repair.actions]


def test_black_images_of_two_patients_and_slices_are_not_merged(
    folder: Any, tmp_path: Path
) -> None:
    for case in ("b0", "b1"):
        folder.image(f"{case}.png", np.zeros((40, 40), np.uint8))
        folder.set(case, label="normal")
    for number, case in enumerate(("v0", "v1")):
        copy(folder, case, "c2", patient_id="V", volume_id="V", slice_index=str(number), label="")
    repair, rows = fixed(folder, tmp_path)
    assert {"b0", "b1", "v0", "v1"} <= set(rows.index)
    assert "drop" not in [one.action for one in repair.actions]


def test_copies_that_stay_are_told(folder: Any, tmp_path: Path) -> None:
    for case in ("v0", "v1"):
        copy(folder, case, "c2", patient_id=case, volume_id=case, slice_index="0", label="benign")
    repair, rows = fixed(folder, tmp_path)
    assert {"c2", "v0", "v1"} <= set(rows.index)
    assert "duplicates-exact" in repair.remaining


def test_a_label_that_followed_from_a_removed_mask_is_removed(folder: Any, tmp_path: Path) -> None:
    for case in ("c2", "c3"):
        number = case[1:]
        folder.set(case, patient_id="V", volume_id="V", slice_index=number, label_level="mask")
    (folder.root / "c2_mask.png").write_bytes(b"")
    repair, rows = fixed(folder, tmp_path)
    assert rows.loc["c2", ["mask", "label", "label_level"]].tolist() == ["", "", ""]
    assert rows.loc["c3", "label_level"] == "mask"
    assert [one.reason for one in repair.actions if one.case_ids == ["c2"]][1:] == [
        "their labels too, which followed from the mask"
    ]


def test_the_copy_reads_images_from_addresses(folder: Any, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    files.pipe("/archive/far.png", (folder.root / "c2.png").read_bytes())
    (folder.root / "c2.png").unlink()
    folder.spec["roots"] = ["memory://archive"]
    folder.set("c2", image="far.png")
    try:
        folder.check(output=tmp_path / "report", fix=tmp_path / "fixed")
        copied = Dataset.load(tmp_path / "fixed")
        assert copied.spec.roots == [str(folder.root.resolve()), "memory://archive"]
        assert str(copied.image_path(copied.cases.iloc[2])) == "memory://archive/far.png"
    finally:
        files.store.clear()
