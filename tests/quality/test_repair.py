"""The repaired copy: problems are fixed, listed and counted, and the source stays unchanged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dxseg import check
from dxseg.data.readers.masks import inspect_mask
from dxseg.data.splits.holdout import make_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.quality import repair as repair_module


@pytest.fixture
def spoiled(folder: Any) -> Any:
    """One case of everything that can be fixed."""
    root = folder.root
    add = {f"d{i}": folder.scene(20 + i) for i in range(9)}
    for case, pixels in add.items():
        folder.image(f"{case}.png", pixels)
        folder.image(f"{case}_mask.png", folder.disc(5))
        folder.set(case, label="benign", mask=f"{case}_mask.png")
    (root / "d0.png").write_bytes(b"")
    folder.set("d1", label="normal")
    (root / "d2_mask.png").write_bytes(b"")
    folder.image("d3_mask.png", folder.disc(5)[:30])
    folder.image("d4_mask.png", np.dstack([folder.disc(5)] * 3))
    folder.image("d5_mask_1.png", folder.disc(3, 33))
    # d6 twice as a file, with another lesion outlined the second time and no label
    (root / "e6.png").write_bytes((root / "d6.png").read_bytes())
    folder.image("e6_mask.png", folder.disc(4, 6))
    folder.set("e6", mask="e6_mask.png", patient_id="")
    # d7 as a near-duplicate of another patient, d8 as one with another label
    folder.image("e7.png", (folder.scene(27) * 0.8 + 30).astype(np.uint8))
    folder.set("e7", label="benign")
    folder.image("e8.png", (folder.scene(28) * 0.8 + 30).astype(np.uint8))
    folder.set("e8", label="malignant")
    return folder


def content(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_copy_is_valid_and_every_repair_is_listed(spoiled: Any, tmp_path: Path) -> None:
    spoiled.save()
    before = content(spoiled.root)
    out = tmp_path / "fixed"
    report = spoiled.check(output=tmp_path / "report", fix=out)
    assert content(spoiled.root) == before
    assert not report.valid
    repair = report.repair
    done = {(a.action, tuple(a.case_ids)) for a in repair.actions}
    assert done == {
        ("drop", ("d0",)),
        ("drop", ("d1",)),
        ("drop", ("d8", "e8")),
        ("drop", ("e6",)),
        ("remove-mask", ("d2",)),
        ("remove-mask", ("d3",)),
        ("merge", ("d5", "d6")),
        ("rewrite-mask", ("d4",)),
        ("group", ("d7", "e7")),
    }
    assert json.loads((out / "repairs.json").read_text())["cases"] == repair.cases == 13
    copy = Dataset.load(out)
    assert len(copy) == 13
    again = check(out, output=tmp_path / "again", workers=1)
    assert again.valid
    assert {f.code for f in again.findings} == {"label-rare", "mask-merged"}
    assert set(repair.remaining) == {"label-rare"}


def test_masks_of_the_copy(spoiled: Any, tmp_path: Path) -> None:
    spoiled.check(output=tmp_path / "report", fix=tmp_path / "fixed")
    copy = Dataset.load(tmp_path / "fixed")
    rows = copy.cases.set_index("case_id", drop=False)
    expected = {
        "d4": spoiled.disc(5),
        "d5": spoiled.disc(5) | spoiled.disc(3, 33),
        "d6": spoiled.disc(5) | spoiled.disc(4, 6),
    }
    for case, pixels in expected.items():
        path = copy.mask_path(rows.loc[case])
        assert path.parent == (tmp_path / "fixed" / "masks").resolve()
        np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
        assert inspect_mask(path, 1).merged_count == (1 if case == "d4" else 2)
    untouched = copy.mask_path(rows.loc["c3"])
    assert untouched == spoiled.root.resolve() / "c3_mask.png"
    assert rows.loc["d2", "mask"] == rows.loc["d3", "mask"] == ""


def test_the_split_of_the_copy_needs_no_search(
    spoiled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled.check(output=tmp_path / "report", fix=tmp_path / "fixed")
    monkeypatch.setattr("dxseg.data.splits.groups.near_duplicate_groups", None)
    copy = Dataset.load(tmp_path / "fixed")
    splits = make_splits(copy).set_index("case_id")
    assert splits.loc["d7", "group"] == splits.loc["e7", "group"]


def test_a_split_of_the_table_that_divides_groups_is_taken_back(
    folder: Any, tmp_path: Path
) -> None:
    folder.set("c3", patient_id="c2")
    for case, split in zip(
        "012345", ("train", "train", "train", "test", "test", "test"), strict=True
    ):
        folder.set(f"c{case}", split=split)
    report = folder.check(fix=tmp_path / "fixed")
    assert [a.action for a in report.repair.actions] == ["empty-split"]
    assert Dataset.load(tmp_path / "fixed").cases["split"].eq("").all()


def test_a_further_mask_that_does_not_fit_is_left_and_said(folder: Any, tmp_path: Path) -> None:
    folder.image("c3_mask_1.png", folder.disc()[:20])
    report = folder.check(fix=tmp_path / "fixed")
    assert "mask-left-out" in report.repair.remaining
    row = Dataset.load(tmp_path / "fixed").cases.iloc[3]
    assert row["mask"] == "c3_mask.png"


def test_an_interrupted_copy_is_no_dataset_and_is_made_again(
    spoiled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "fixed"
    with monkeypatch.context() as patch:
        patch.setattr(repair_module._RepairedTable, "group", stop)
        with pytest.raises(KeyboardInterrupt):
            spoiled.check(fix=out)
    assert any((out / "masks").iterdir())
    with pytest.raises(DxsegError):
        Dataset.load(out)
    assert spoiled.check(fix=out).repair.cases == len(Dataset.load(out))
    assert not list(out.glob(".import*"))
    with pytest.raises(DxsegError, match="choose another destination"):
        spoiled.check(fix=out)


def test_the_copy_may_not_lie_in_the_source(folder: Any, cli: Any) -> None:
    for place in (folder.root / "fixed", folder.root, folder.root.parent):
        with pytest.raises(UsageError, match="never changed"):
            folder.check(fix=place)
    assert not (folder.root / "fixed").exists()
    assert cli("check", folder.root, "--fix", folder.root / "x").exit_code == 2


def test_nothing_left_is_an_error(folder: Any, tmp_path: Path) -> None:
    for number in range(6):
        (folder.root / f"c{number}.png").write_bytes(b"")
    with pytest.raises(DxsegError, match="no case is left"):
        folder.check(fix=tmp_path / "fixed")
    with pytest.raises(DxsegError):
        Dataset.load(tmp_path / "fixed")
