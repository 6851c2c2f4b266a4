"""Label maps of one structure each: which they are, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dxseg.commands.import_volumes import import_volumes
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import UsageError
from volume_phantom import ct, save


def total_segmentator(root: Path, *structures: str) -> Path:
    """Cases of one volume each, with the liver and its tumour as files of their own."""
    for number in range(2):
        voxels, labels = ct(number)
        save(root / f"s{number}/ct.nii.gz", voxels)
        for name in structures:
            drawn = {"liver": labels > 0, "liver_tumor": labels == 2}.get(name, labels > 9)
            save(root / f"s{number}/segmentations/{name}.nii.gz", drawn.astype(np.uint8))
    return root


def test_one_file_per_structure(tmp_path: Path) -> None:
    source = total_segmentator(tmp_path / "ts", "liver_tumor", "vessels", "liver")
    report = import_volumes(source, tmp_path / "out")
    dataset = Dataset.load(tmp_path / "out")
    assert (report.volumes, report.failed) == (2, [])
    assert dataset.spec.mask_classes == ["liver", "vessels", "liver_tumor"]
    assert dataset.cases["volume_id"].unique().tolist() == ["s0_ct", "s1_ct"]
    assert any("lesions, by their names: liver_tumor" in note for note in report.notes)
    assert any("in several structures" in note for note in report.notes)
    for row in dataset.cases.itertuples():
        labels = ct(int(row.volume_id[1]))[1][::-1, ::-1, row.slice_index].T
        shown = read_mask(dataset.mask_path(row), 3)
        np.testing.assert_array_equal(shown, np.where(labels == 2, 3, labels))
        assert row.label == ("liver_tumor" if 2 in labels else "no liver_tumor")
    only = {"liver_tumor": "tumour"}
    import_volumes(source, tmp_path / "chosen", regions=only)
    chosen = Dataset.load(tmp_path / "chosen")
    assert (chosen.spec.mask_classes, chosen.spec.labels) == (["tumour"], ["no tumour", "tumour"])
    with pytest.raises(
        UsageError, match="no label map is of it; there are liver, liver_tumor, vessels"
    ):
        import_volumes(source, tmp_path / "wrong", regions={"spleen": "spleen"})
    organs = total_segmentator(tmp_path / "organs", "liver", "spleen")
    with pytest.raises(UsageError, match="--lesion-class"):
        import_volumes(organs, tmp_path / "wrong")


def test_the_ignore_value_in_the_file_of_a_structure_is_no_structure(tmp_path: Path) -> None:
    source = total_segmentator(tmp_path / "ts", "liver", "liver_tumor")
    tumor = (ct()[1] == 2).astype(np.uint8)
    tumor[0, 0, 3] = 255
    tumor[:, :, 5] *= 255
    save(source / "s0/segmentations/liver_tumor.nii.gz", tumor)
    import_volumes(source, tmp_path / "out", ignore_value=255)
    cases = Dataset.load(tmp_path / "out").cases.set_index("case_id")
    assert cases.loc[["s0_ct_0003", "s0_ct_0005"], ["mask", "label"]].eq("").all(axis=None)
    assert cases["label"].eq("").sum() == 2
    assert cases.loc["s0_ct_0004", "label"] == "liver_tumor"


def test_pairs_of_bids_are_no_structures_but_that_of_the_label(tmp_path: Path) -> None:
    for name in ("sub-1", "sub-2"):
        voxels, labels = ct()
        save(tmp_path / f"in/{name}_T1w.nii.gz", voxels)
        for value, structure in ((1, "edema"), (2, "lesion")):
            drawn = (labels == value).astype(np.uint8)
            save(tmp_path / f"in/{name}_space-orig_label-{structure}_mask.nii.gz", drawn)
    report = import_volumes(tmp_path / "in", tmp_path / "out")
    assert (report.volumes, report.skipped) == (2, [])
    spec = Dataset.load(tmp_path / "out").spec
    assert (spec.mask_classes, spec.lesion_classes) == (["edema", "lesion"], None)
