"""Findings between cases, exit codes, resuming, and that the source is left alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dxseg import check
from dxseg.commands.imports import import_busi
from dxseg.data.splits.holdout import make_splits
from dxseg.data.splits.split_table import write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.quality.finding_types import FINDING_TYPES
from dxseg.quality.findings import CheckReport

SPLIT = ["train", "train", "train", "validation", "test", "test"]


def copy_of(folder: Any, case: str, original: str, **values: Any) -> None:
    """Add a brightened copy, which is a near-duplicate and another file."""
    pixels = np.asarray(Image.open(folder.root / f"{original}.png"))
    folder.image(f"{case}.png", (pixels * 0.8 + 30).astype(np.uint8))
    folder.set(case, **{"label": "benign", **values})


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "check" not in path.relative_to(root).parts
    }


def test_near_duplicates_of_two_patients(folder: Any, codes: Any) -> None:
    copy_of(folder, "c9", "c2")
    found = codes(folder.check())
    assert list(found) == ["duplicates-near", "duplicates-across-patients"]
    for finding in found.values():
        assert finding.groups == [["c2", "c9"]]
        assert (finding.count, finding.group_count) == (2, 1)


def test_near_duplicates_of_one_patient_are_no_finding(folder: Any, codes: Any) -> None:
    copy_of(folder, "c9", "c2", patient_id="c2")
    assert codes(folder.check()) == {}


def test_near_duplicates_with_other_labels(folder: Any, codes: Any) -> None:
    copy_of(folder, "c9", "c2", label="malignant", patient_id="")
    found = codes(folder.check())
    assert list(found) == ["labels-contradict", "duplicates-near", "patient-missing"]
    assert found["labels-contradict"].groups == [["c2", "c9"]]


def test_constant_images_are_no_duplicates_of_each_other(folder: Any, codes: Any) -> None:
    for case, level in (("c2", 5), ("c4", 90)):
        folder.image(f"{case}.png", np.full((40, 40), level, np.uint8))
    assert list(codes(folder.check())) == ["image-constant"]


def test_copies_of_a_file_are_exact_duplicates(folder: Any, codes: Any) -> None:
    (folder.root / "c9.png").write_bytes((folder.root / "c2.png").read_bytes())
    folder.set("c9", label="benign", patient_id="c2")
    found = codes(folder.check())
    assert found["duplicates-exact"].groups == [["c2", "c9"]]


def test_slices_of_one_file_are_no_copies(folder: Any, codes: Any) -> None:
    for number, case in enumerate(("c2", "c9")):
        folder.set(case, image="c2.png", slice_index=str(number), label="benign", mask="")
    assert "duplicates-exact" not in codes(folder.check())


def test_splits_that_divide_what_belongs_together(folder: Any, codes: Any, tmp_path: Path) -> None:
    copy_of(folder, "c6", "c2", label="malignant")
    folder.set("c5", patient_id="c0")
    dataset = folder.save()
    splits = make_splits(dataset, groups=dataset.cases.set_index("case_id").index.to_series())
    # c0 and c5 are one patient; c2 and c6 one image under two labels; c1 is left out.
    splits["split"] = ["train", "dropped", "train", "train", "validation", "test", "test"]
    splits["fold"] = splits["split"].isin(["train", "validation"]).map({True: 0, False: None})
    write_splits(tmp_path / "splits.csv", splits)
    report = folder.check(splits=tmp_path / "splits.csv")
    found = codes(report)
    assert not report.valid
    assert len(report.splits_sha256) == 64
    assert found["patients-across-splits"].case_ids == ["c0", "c5"]
    assert found["duplicates-across-splits"].case_ids == ["c2", "c6"]
    assert found["labels-contradict-in-splits"].case_ids == ["c2", "c6"]
    lacking = found["split-lacks-label"].details
    assert lacking[0] == "normal: none in validation, test"


def test_the_column_split_is_checked_and_what_is_dropped_does_no_harm(
    folder: Any, codes: Any
) -> None:
    copy_of(folder, "c6", "c2", label="malignant", patient_id="c6")
    for case, split in zip([f"c{i}" for i in range(7)], [*SPLIT, "test"], strict=True):
        folder.set(case, split=split)
    found = codes(folder.check())
    assert {"duplicates-across-splits", "labels-contradict-in-splits"} <= set(found)
    folder.set("c2", split="dropped")
    folder.set("c6", split="dropped")
    report = folder.check()
    assert report.valid
    assert "labels-contradict" in codes(report)


def test_a_split_by_dxseg_is_clean(folder: Any, codes: Any, tmp_path: Path) -> None:
    for case in ("c0", "c1", "c2", "c3", "c4", "c5"):
        folder.set(case, patient_id="")
    copy_of(folder, "c6", "c2", patient_id="")
    copy_of(folder, "c7", "c4", patient_id="")
    dataset = folder.save()
    write_splits(tmp_path / "splits.csv", make_splits(dataset, workers=1))
    assert folder.check(splits=tmp_path / "splits.csv").valid


def test_the_source_is_left_alone_and_the_report_is_what_was_returned(folder: Any) -> None:
    folder.save()
    before = digests(folder.root)
    report = folder.check()
    assert digests(folder.root) == before
    written = (folder.root / "check" / "check.json").read_text()
    assert CheckReport.model_validate_json(written).model_dump() == report.model_dump()
    assert json.loads(written)["digest"] == Dataset.load(folder.root).digest()


def test_findings_come_errors_first_with_title_and_remedy_of_their_type(folder: Any) -> None:
    (folder.root / "c3.png").write_bytes(b"")
    copy_of(folder, "c9", "c2")
    report = folder.check()
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert report.severities == {name: severities.count(name) for name in report.severities}
    for finding in report.findings:
        assert finding.remedy == FINDING_TYPES[finding.code].remedy


def test_an_interrupted_check_looks_at_no_file_twice(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dxseg.quality import scan

    folder.save()
    seen: list[str] = []
    inspect = scan.inspect_case

    def watched(job: Any) -> bytes:
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(job.image.name)
        return inspect(job)

    monkeypatch.setattr(scan, "inspect_case", watched)
    with pytest.raises(KeyboardInterrupt):
        folder.check()
    assert not (folder.root / "check" / "check.json").exists()
    monkeypatch.setattr(
        scan, "inspect_case", lambda job: seen.append(job.image.name) or inspect(job)
    )
    first = folder.check()
    assert sorted(seen) == sorted(set(seen)) == [f"c{i}.png" for i in range(6)]
    assert folder.check() == first
    assert len(seen) == 6
    # A mask that changes is looked at again.
    folder.image("c3_mask.png", folder.disc(3))
    folder.check()
    assert seen[6:] == ["c3.png"]


def test_processes_find_the_same(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.root / "c3_mask.png").write_bytes(b"")
    alone = folder.check()
    (folder.root / "check" / "cache.sqlite").unlink()
    monkeypatch.setattr("dxseg.io.parallel.MIN_ITEMS_PER_PROCESS", 3)
    assert folder.check(workers=2) == alone


def test_exit_codes_and_what_is_printed(cli: Any, folder: Any, tmp_path: Path) -> None:
    folder.save()
    clean = cli("check", folder.root, "--workers", 1, "--out", tmp_path / "out")
    assert clean.exit_code == 0, clean.output
    assert "label-rare" in clean.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "check.json",
        "check.html",
        "cache.sqlite",
    }
    (folder.root / "c3.png").write_bytes(b"")
    spoiled = cli("check", folder.root, "--workers", 1)
    assert spoiled.exit_code == 1
    assert "error image-unreadable" in spoiled.stdout
    assert "0 bytes" in spoiled.stdout
    assert "Traceback" not in spoiled.output
    assert cli("check", folder.root, "--workers", 0).exit_code == 2


def test_a_dataset_that_cannot_be_loaded_is_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(DxsegError, match=r"dataset\.yaml: not found"):
        check(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_page_shows_cases_without_scripts(folder: Any) -> None:
    copy_of(folder, "<b>c9</b>".replace("/", ""), "c2")
    folder.spec["name"] = "a & b"
    (folder.root / "c3.png").write_bytes(b"")
    folder.check()
    page = (folder.root / "check" / "check.html").read_text()
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert "&lt;b&gt;c9&lt;b&gt;" in page
    assert "a &amp; b" in page
    assert page.count("<img ") == page.count('src="data:image/png;base64,') == page.count(" alt=")
    assert "No picture: the image cannot be read." in page
    for finding in ("image-unreadable", "duplicates-near"):
        assert f'id="{finding}"' in page


@pytest.mark.real_data
@pytest.mark.slow
def test_busi(busi_root: Path, tmp_path: Path) -> None:
    import_busi(busi_root, tmp_path / "busi")
    report = check(tmp_path / "busi")
    found = {f.code: f for f in report.findings}
    assert report.valid
    assert found["mask-merged"].count == 17
    assert (found["duplicates-near"].group_count, found["duplicates-near"].count) == (125, 282)
    assert (found["labels-contradict"].group_count, found["labels-contradict"].count) == (6, 14)
    assert found["patient-missing"].count == 780
