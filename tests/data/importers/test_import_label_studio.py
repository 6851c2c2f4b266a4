"""`dxseg import label-studio`: an export of Label Studio, and what becomes of the dataset."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg.commands.imports import import_label_studio
from dxseg.data.exporters.brush_rle import encode_brush
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.errors import DxsegError, UsageError

SIZE = (24, 32)


def square(top: int, left: int = 4, side: int = 6) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def region(mask: np.ndarray, label: str = "lesion", **changes: Any) -> dict[str, Any]:
    """A region as Label Studio 1.23 exports it."""
    return {
        "id": "a1b2c3",
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "origin": "prediction-changed",
        "original_width": mask.shape[1],
        "original_height": mask.shape[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label]},
    } | changes


def annotation(*regions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "completed_by": {"id": 1, "email": "jane.doe@clinic.example", "first_name": "Jane"},
        "result": list(regions),
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-20T10:00:00Z",
        "updated_at": "2026-11-20T10:05:00Z",
        "lead_time": 12.5,
        "parent_prediction": None,
        "prediction": {},
    } | changes


def task(case_id: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    data = {"image": "/data/local-files/?d=images/00001.png", "case_id": case_id, "label": "mass"}
    return {"id": 3, "data": data, "annotations": list(annotations), "drafts": [], "meta": {}}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    rows = []
    for case, label in (("a", "mass"), ("b", "mass"), ("c", "normal"), ("d", "")):
        Image.fromarray(np.full(SIZE, 90, np.uint8)).save(root / "images" / f"{case}.png")
        rows.append({"case_id": case, "image": f"images/{case}.png", "label": label})
    spec = DatasetSpec(
        name="set",
        labels=["normal", "mass"],
        lesion_free=["normal"],
        mask_classes=["lesion", "cyst"],
    )
    return Dataset.create(root, spec, pd.DataFrame(rows)).root


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(*tasks: dict[str, Any]) -> Path:
        path = tmp_path / "export.json"
        path.write_text(json.dumps(tasks))
        return path

    return write


def masks(root: Path) -> dict[str, np.ndarray]:
    data = Dataset.load(root)
    paths = {row.case_id: data.mask_path(row) for row in data.cases.itertuples()}
    return {case: read_mask(path, 2) for case, path in paths.items() if path is not None}


def test_drawn_masks_become_those_of_the_cases(
    cli: Any, dataset: Path, write: Callable[..., Path]
) -> None:
    export = write(
        task("a", annotation(region(square(2)), region(square(14), "cyst"))),
        task("b", annotation(region(square(3)), region(square(6)), prediction=None)),
    )
    result = cli("import", "label-studio", export, dataset, "--role", "radiologist")
    assert result.exit_code == 0, result.output
    assert "2 masks saved" in result.stdout
    found = masks(dataset)
    assert found.keys() == {"a", "b"}
    assert np.array_equal(found["a"], square(2) + 2 * square(14))
    assert np.array_equal(found["b"], square(3) | square(6))
    with (dataset / "annotations.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert [(one["case_id"], one["role"]) for one in records] == [
        ("a", "radiologist"),
        ("b", "radiologist"),
    ]
    for path in dataset.rglob("*.csv"):
        assert "ane" not in path.read_text(), "who drew it is a role"


def test_the_model_that_was_corrected_is_recorded(
    dataset: Path, write: Callable[..., Path]
) -> None:
    full = {"id": 4, "model_version": "ab" * 6, "score": 0.9, "result": []}
    drawn = region(square(2))
    tasks = [
        task("a", annotation(drawn, parent_prediction=4, prediction=full)),
        task("b", annotation(drawn, parent_prediction=4)) | {"predictions": [full]},
        # The prediction was there, but the annotation did not begin with it.
        task("d", annotation(drawn, prediction=full)),
    ]
    import_label_studio(write(*tasks), dataset, role="other")
    told = pd.read_csv(dataset / "annotations.csv", keep_default_na=False)["model"]
    assert told.tolist() == ["ab" * 6, "ab" * 6, ""]
    other = full | {"model_version": "Jane's"}
    again = annotation(region(square(9)), parent_prediction=4, prediction=other)
    import_label_studio(write(task("a", again)), dataset, role="other")
    told = pd.read_csv(dataset / "annotations.csv", keep_default_na=False)["model"]
    assert told.iloc[-1] == ""


def test_the_same_import_again_changes_nothing(dataset: Path, write: Callable[..., Path]) -> None:
    export = write(task("a", annotation(region(square(2)))))
    import_label_studio(export, dataset, role="trainee")
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    again = import_label_studio(export, dataset, role="trainee")
    assert (again.saved, again.unchanged) == ([], ["a"])
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == before
    corrected = write(task("a", annotation(region(square(9)))))
    assert import_label_studio(corrected, dataset, role="trainee").saved == ["a"]
    assert np.array_equal(masks(dataset)["a"], square(9))


def test_the_last_annotation_that_was_not_skipped_counts(
    dataset: Path, write: Callable[..., Path]
) -> None:
    export = write(
        task(
            "a",
            annotation(region(square(9)), updated_at="2026-11-22T10:00:00Z"),
            annotation(region(square(2)), updated_at="2026-11-21T10:00:00Z"),
            annotation(region(square(5)), updated_at="2026-11-23T10:00:00Z", was_cancelled=True),
        )
    )
    import_label_studio(export, dataset, role="other")
    assert np.array_equal(masks(dataset)["a"], square(9))


@pytest.mark.parametrize(
    ("case", "annotations", "told"),
    [
        ("z", [annotation(region(square(2)))], "no case 'z'"),
        ("a", [], "not annotated"),
        ("a", [annotation(was_cancelled=True)], "not annotated"),
        ("a", [annotation()], "nothing is drawn"),
        ("a", [annotation(region(square(2), "odd"))], "expected one of lesion, cyst"),
        ("a", [annotation(region(square(2)), region(square(4), "cyst"))], "overlap"),
        ("a", [annotation(region(square(2), type="polygonlabels"))], "polygonlabels"),
        ("a", [annotation(region(np.ones((8, 8), bool)))], "its image has (24, 32)"),
        ("a", [annotation(region(square(2), original_width=33))], "its image has (24, 32)"),
        (
            "a",
            [annotation(region(square(2), value={"rle": [1], "brushlabels": ["lesion"]}))],
            "cut",
        ),
        ("c", [annotation(region(square(2)))], "means lesion-free"),
    ],
)
def test_what_does_not_fit_is_told_and_the_others_imported(
    dataset: Path,
    write: Callable[..., Path],
    case: str,
    annotations: list[dict[str, Any]],
    told: str,
) -> None:
    export = write(task(case, *annotations), task("d", annotation(region(square(2)))))
    report = import_label_studio(export, dataset, role="other")
    assert report.saved == ["d"]
    [(name, reason)] = report.skipped
    assert name == case
    assert told in reason
    assert any(reason in note for note in report.notes)


def test_what_says_something_of_the_image_is_passed_over(
    dataset: Path, write: Callable[..., Path]
) -> None:
    choice = {"type": "choices", "value": {"choices": ["mass"]}, "from_name": "label"}
    export = write(task("a", annotation(choice, region(square(2)))))
    assert import_label_studio(export, dataset, role="other").saved == ["a"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"tasks": []}', "list of tasks"),
        ('[{"id": 1, "image": "a.png", "mask": []}]', "not JSON-MIN"),
    ],
)
def test_other_files_are_refused(dataset: Path, tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(DxsegError, match=told):
        import_label_studio(path, dataset, role="other")
    with pytest.raises(DxsegError, match="cannot be read"):
        import_label_studio(tmp_path / "none.json", dataset, role="other")
    with pytest.raises(UsageError, match="names are not stored"):
        import_label_studio(path, dataset, role="Jane Doe")
