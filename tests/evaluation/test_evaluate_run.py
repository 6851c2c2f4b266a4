from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg.data.splits.split_table import write_splits
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.errors import DxsegError, UsageError
from dxseg.evaluation.evaluate import evaluate_run, open_run
from dxseg.inference.predictor import Predictor

SHAPE = (32, 40)


@dataclass(frozen=True)
class Predicted:
    mask: np.ndarray
    probabilities: np.ndarray
    label_probabilities: dict[str, float] | None = None

    @property
    def network_probabilities(self) -> np.ndarray:
        return self.probabilities


class BrightIsLesion:
    """A predictor whose mask is the bright part of the image, so that the answer is known."""

    def __init__(self, mask_classes=("lesion",)):
        self.info = SimpleNamespace(
            mask_classes=list(mask_classes),
            joins_slices=False,
            labels=["normal", "benign"],
            without_lesion=["normal"],
            multi_label=False,
            threshold=0.5,
            sliding_window=False,
            weights_sha256="0" * 64,
        )
        self.lose: str | None = None
        self.told: dict[str, str] | None = None

    def stream(self, items, labels=None, **_options):
        self.told = labels
        for name, source in items:
            if name == self.lose:
                continue
            try:
                gray = np.asarray(Image.open(source.image))
            except OSError as error:
                yield name, DxsegError(f"{source.image}: {error}")
                continue
            mask = (gray > 128).astype(np.uint8)
            normal = 0.0 if mask.any() else 1.0
            labels = {"normal": normal, "benign": 1 - normal}
            yield name, Predicted(mask, mask[None].astype(np.float32), labels)


@pytest.fixture
def predictor(monkeypatch) -> BrightIsLesion:
    fake = BrightIsLesion()
    monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: fake)
    return fake


def make_run(tmp_path: Path, **columns) -> Path:
    """Six cases of three patients; a, b, c, d in test: d has a label only, c is lesion-free."""
    data = tmp_path / "data"
    data.mkdir()
    for name in "abcdef":
        lesion = np.zeros(SHAPE, dtype=np.uint8)
        if name != "c":
            lesion[8:20, 10:22] = 255
        Image.fromarray(lesion).save(data / f"{name}.png")
        Image.fromarray(lesion).save(data / f"{name}_mask.png")
    table = pd.DataFrame({"case_id": list("abcdef")})
    table["image"] = table["case_id"] + ".png"
    table["mask"] = [f"{name}_mask.png" if name not in "cd" else "" for name in "abcdef"]
    table["label"] = ["benign", "benign", "normal", "benign", "benign", "benign"]
    spec = DatasetSpec(
        name="boxes",
        labels=["normal", "benign"],
        lesion_free=["normal"],
        spacing_unit=columns.pop("spacing_unit", "pixel"),
    )
    Dataset.create(data, spec, table.assign(**columns))
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"dataset": str(data), "method": "x", "seed": 0}))
    splits = pd.DataFrame(
        {
            "case_id": list("abcdef"),
            "group": [0, 0, 1, 2, 3, 4],
            "split": ["test"] * 4 + ["train", "validation"],
            "fold": pd.array([pd.NA] * 4 + [0, 1], dtype="Int64"),
            "use_mask": [True, True, True, False, True, False],
        }
    )
    write_splits(run / "splits.csv", splits)
    return run


def test_a_perfect_model_is_measured_perfect_and_written(tmp_path, predictor):
    run = make_run(tmp_path)
    calls: list[tuple[int, int]] = []
    evaluation = evaluate_run(
        run, *open_run(run), resamples=50, progress=lambda *call: calls.append(call)
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    summary = json.loads((run / "evaluation.json").read_text())
    assert summary == evaluation.summary
    assert (summary["dice_lesion"], summary["dice_all"], summary["auroc_label"]) == (1, 1, 1)
    assert summary["averaged_by"] == "image"
    assert summary["split"] == "test"
    assert summary["counts"]["images"] == 4
    assert summary["counts"]["images_without_mask"] == 1
    rows = pd.read_csv(run / "per_image.csv").set_index("case_id")
    assert rows.loc["a", "true_area"] == 144
    assert rows["group"].tolist() == [0, 0, 1, 2]
    assert len(pd.read_csv(run / "per_patient.csv")) == 3


def test_patients_name_the_groups_and_weigh_alike(tmp_path, predictor):
    run = make_run(tmp_path, patient_id=["p", "p", "q", "r", "s", "t"])
    evaluation = evaluate_run(run, *open_run(run), resamples=50)
    assert evaluation.summary["averaged_by"] == "patient"
    assert evaluation.per_patient["group"].tolist() == ["p", "q", "r"]


def test_millimeters_only_where_every_case_has_them(tmp_path, predictor):
    spaced = make_run(tmp_path, spacing_unit="mm", spacing_y=[0.5] * 6, spacing_x=[0.25] * 6)
    evaluation = evaluate_run(spaced, *open_run(spaced), resamples=50)
    assert evaluation.summary["units"]["area"] == "mm2"
    assert evaluation.per_image["true_area"].iloc[0] == pytest.approx(144 * 0.125)
    (tmp_path / "other").mkdir()
    gap = [0.5, None, *[0.5] * 4]
    partly = make_run(tmp_path / "other", spacing_unit="mm", spacing_y=gap, spacing_x=gap)
    assert evaluate_run(partly, *open_run(partly), resamples=50).summary["units"]["area"] == "px"


def test_hidden_masks_stay_hidden_and_other_splits_get_their_own_files(tmp_path, predictor):
    run = make_run(tmp_path)
    evaluation = evaluate_run(run, *open_run(run), split="validation", resamples=50)
    assert evaluation.summary["counts"]["images_without_mask"] == 1
    assert evaluation.summary["dice_lesion"] is None
    assert (run / "evaluation_validation.json").exists()
    assert not (run / "evaluation.json").exists()


def test_the_model_is_told_labels_only_where_asked_and_in_files_of_their_own(tmp_path, predictor):
    run = make_run(tmp_path)
    plain = evaluate_run(run, *open_run(run), resamples=10)
    assert predictor.told is None
    assert plain.summary["label_prompts"] is False
    before = (run / "evaluation.json").read_bytes()
    known = evaluate_run(run, *open_run(run), label_prompts=True, resamples=10)
    assert predictor.told == {"a": "benign", "b": "benign", "c": "normal", "d": "benign"}
    assert known.summary["label_prompts"] is True
    assert (run / "evaluation.json").read_bytes() == before
    for name in (
        "evaluation_label_prompts.json",
        "per_image_label_prompts.csv",
        "per_patient_label_prompts.csv",
    ):
        assert (run / name).is_file()
    evaluate_run(run, *open_run(run), split="validation", label_prompts=True, resamples=10)
    assert (run / "evaluation_validation_label_prompts.json").is_file()


def test_cases_of_which_nothing_is_known_are_left_out_and_counted(tmp_path, predictor):
    run = make_run(tmp_path, label=["benign", "benign", "normal", "", "benign", "benign"])
    counts = evaluate_run(run, *open_run(run), resamples=50).summary["counts"]
    assert (counts["images"], counts["images_left_out"]) == (3, 1)


def test_a_missing_prediction_is_an_error_and_nothing_is_written(tmp_path, predictor):
    run = make_run(tmp_path)
    predictor.lose = "b"
    with pytest.raises(DxsegError, match="case 'b' has no prediction"):
        evaluate_run(run, *open_run(run))
    predictor.lose = "d"
    with pytest.raises(DxsegError, match="case 'd' has no prediction"):
        evaluate_run(run, *open_run(run))
    assert not (run / "evaluation.json").exists()
    assert not (run / "per_image.csv").exists()


@pytest.mark.parametrize("name", ["b.png", "b_mask.png"])
def test_an_unreadable_file_is_an_error_that_names_it(tmp_path, predictor, name):
    run = make_run(tmp_path)
    (tmp_path / "data" / name).write_bytes(b"not an image")
    with pytest.raises(DxsegError, match=name):
        evaluate_run(run, *open_run(run))


def test_a_mask_of_another_size_is_an_error(tmp_path, predictor):
    run = make_run(tmp_path)
    Image.fromarray(np.zeros((40, 32), dtype=np.uint8)).save(tmp_path / "data" / "b_mask.png")
    with pytest.raises(DxsegError, match="case 'b': its mask is"):
        evaluate_run(run, *open_run(run))


def test_a_model_of_other_mask_classes_is_refused(tmp_path, predictor):
    predictor.info.mask_classes = ["cyst", "tumour"]
    with pytest.raises(DxsegError, match="mask classes"):
        open_run(make_run(tmp_path))


def test_what_is_no_finished_run_is_refused(tmp_path, predictor):
    with pytest.raises(
        DxsegError, match=r"run\.json: not found; expected the folder of a finished run"
    ):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DxsegError, match="not JSON"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DxsegError, match="key dataset is missing"):
        open_run(tmp_path)


def test_a_split_without_cases_is_refused(tmp_path, predictor):
    run = make_run(tmp_path)
    with pytest.raises(UsageError, match="no case in split 'tset'; expected one of test, train"):
        evaluate_run(run, *open_run(run), split="tset")


def test_a_dataset_that_has_moved_can_be_named(tmp_path, predictor):
    run = make_run(tmp_path)
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(DxsegError):
        evaluate_run(run, *open_run(run))
    output = tmp_path / "elsewhere"
    evaluate_run(run, *open_run(run, tmp_path / "moved"), output=output, resamples=50)
    assert (output / "evaluation.json").exists()
