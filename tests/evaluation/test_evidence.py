"""Evidence against masks: closed forms, hidden masks, networks without evidence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg.data.splits.split_table import write_splits
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.errors import DxsegError
from dxseg.evaluation.cases import EvaluationProtocol
from dxseg.evaluation.evaluate import evaluate_run, open_run
from dxseg.evaluation.evidence import CUTS, EvidenceQuality
from dxseg.inference.predictor import Predictor

SIDE = 20
LABELS = ["normal", "benign", "malignant"]


@dataclass(frozen=True)
class Predicted:
    mask: np.ndarray
    probabilities: np.ndarray
    label_probabilities: dict[str, float] | None
    evidence: np.ndarray | None

    @property
    def network_probabilities(self) -> np.ndarray:
        return self.probabilities


def info() -> Any:
    return SimpleNamespace(
        labels=LABELS,
        without_lesion=["normal"],
        multi_label=False,
        mask_classes=["lesion"],
        threshold=0.5,
        weights_sha256="0" * 64,
        joins_slices=False,
        sliding_window=False,
    )


def predicted(evidence: np.ndarray | None, learnt: bool = True) -> Predicted:
    """Half of the evidence for either lesion label, none of it for "normal"."""
    maps = None
    if evidence is not None:
        half = evidence.astype(np.float32) / 2
        maps = np.stack([1 - evidence.astype(np.float32), half, half])
    empty = np.zeros((SIDE, SIDE), np.uint8)
    diagnosis = dict.fromkeys(LABELS, 1 / 3) if learnt else None
    return Predicted(empty, empty[None].astype(np.float32), diagnosis, maps)


def lesion() -> np.ndarray:
    """The first four rows, a fifth of the image."""
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[:4] = 1
    return truth


def ramp(down: bool = True) -> np.ndarray:
    """Evidence that falls from the first row, 0.975, to the last, 0.025; or rises."""
    column = (np.arange(SIDE)[::-1] + 0.5) / SIDE
    return np.repeat((column if down else column[::-1])[:, None], SIDE, axis=1)


def quality(*evidence: np.ndarray, multi_label: bool = False) -> EvidenceQuality:
    protocol = EvaluationProtocol(lesion_free_labels=["normal"], multi_label=multi_label)
    gathered = EvidenceQuality(LABELS, protocol)
    for one in evidence:
        gathered.add(lesion(), predicted(one))
    return gathered


def test_evidence_that_is_highest_on_the_lesion() -> None:
    found = quality(ramp())
    summary = found.summary(found)
    assert summary is not None
    assert summary["pixel_auroc"] == 1
    assert summary["dice"] == 1
    # Between the last row of the lesion and the first beside it.
    assert 0.775 < summary["cut"] <= 0.825
    assert (summary["top_on_lesion"], summary["lowest_on_lesion"]) == (1, 0)


def test_evidence_that_is_lowest_on_the_lesion() -> None:
    found = quality(ramp(down=False))
    summary = found.summary(found)
    assert summary is not None
    assert summary["pixel_auroc"] == 0
    assert summary["top_on_lesion"] == 0
    assert summary["lowest_on_lesion"] == pytest.approx(4 / 14)
    # Nothing better than to take the whole image.
    assert summary["dice"] == pytest.approx(2 * 80 / (400 + 80))


def test_figures_are_means_over_images() -> None:
    found = quality(ramp(), ramp(down=False))
    summary = found.summary(found)
    assert summary is not None
    assert (summary["images"], summary["pixel_auroc"], summary["top_on_lesion"]) == (2, 0.5, 0.5)


def test_the_cut_is_the_validation_images() -> None:
    weak = quality(0.4 * ramp())
    summary = quality(ramp()).summary(weak)
    assert summary is not None
    assert 0.4 * 0.775 < summary["cut"] <= 0.4 * 0.825
    rows = int((ramp()[:, 0] >= summary["cut"]).sum())
    assert summary["dice"] == pytest.approx(2 * 4 / (rows + 4))
    assert summary["validation_images"] == 1
    without = quality(ramp()).summary(quality())
    assert without is not None
    assert (without["dice"], without["cut"], without["validation_images"]) == (None, None, 0)


def test_labels_that_do_not_exclude_each_other_are_not_added_up() -> None:
    found = quality(ramp(), multi_label=True)
    summary = found.summary(found)
    assert summary is not None
    assert 0.775 / 2 < summary["cut"] <= 0.825 / 2


def test_small_maps_are_interpolated_to_the_image() -> None:
    found = quality()
    small = ramp().reshape(5, 4, 5, 4).mean(axis=(1, 3))
    found.add(lesion(), predicted(small))
    summary = found.summary(found)
    assert summary is not None
    assert summary["pixel_auroc"] > 0.98


@pytest.mark.parametrize(
    ("truth", "prediction"),
    [
        (None, predicted(ramp())),
        (np.zeros((SIDE, SIDE), np.uint8), predicted(ramp())),
        (np.ones((SIDE, SIDE), np.uint8), predicted(ramp())),
        (lesion(), predicted(None)),
        (lesion(), predicted(ramp(), learnt=False)),
    ],
)
def test_what_says_nothing_of_evidence_is_left_out(truth: Any, prediction: Predicted) -> None:
    found = quality()
    found.add(truth, prediction)
    assert found.images == 0
    assert found.summary(found) is None


def test_organs_are_no_lesions() -> None:
    """The liver is 1 and fills the last rows, where the evidence is lowest."""
    protocol = EvaluationProtocol(
        ["liver", "tumor"], lesion_free_labels=["normal"], lesion_classes=["tumor"]
    )
    found = EvidenceQuality(LABELS, protocol)
    liver = lesion()[::-1]
    found.add(liver, predicted(ramp()))
    assert found.images == 0, "no lesion"
    found.add(liver + 2 * lesion(), predicted(ramp()))
    summary = found.summary(found)
    assert summary is not None
    assert (summary["images"], summary["pixel_auroc"], summary["dice"]) == (1, 1, 1)


def test_dice_at_every_cut_by_counting() -> None:
    evidence = np.random.default_rng(0).random((SIDE, SIDE))
    evidence[0, :3] = CUTS[[3, 10, 40]]  # on the cut counts as found
    found = quality(evidence)
    for place, cut in enumerate(CUTS.astype(np.float32)):
        mask = evidence.astype(np.float32) >= cut
        dice = 2 * (mask & (lesion() > 0)).sum() / (mask.sum() + 80)
        assert found._dice[place] == pytest.approx(dice, abs=0.02)


class Pointing:
    """A predictor whose evidence is the image's brightness."""

    def __init__(self, learnt: bool = True) -> None:
        self.info, self.learnt = info(), learnt
        self.seen: list[str] = []

    def stream(self, items: Any, **_options: Any) -> Any:
        for name, source in items:
            self.seen.append(name)
            try:
                gray = np.asarray(Image.open(source.image))
            except OSError as error:
                yield name, DxsegError(f"{source.image}: {error}")
                continue
            yield name, predicted(gray / 255, self.learnt)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Test: a, b with masks, c lesion-free; validation: d, and e whose mask is hidden."""
    data = tmp_path / "data"
    data.mkdir()
    for name in "abcde":
        Image.fromarray((ramp(name != "b") * 255).astype(np.uint8)).save(data / f"{name}.png")
        Image.fromarray(lesion() * np.uint8(255)).save(data / f"{name}_mask.png")
    table = pd.DataFrame({"case_id": list("abcde")})
    table["image"] = table["case_id"] + ".png"
    table["mask"] = [f"{name}_mask.png" if name != "c" else "" for name in "abcde"]
    table["label"] = ["benign", "malignant", "normal", "benign", "benign"]
    Dataset.create(data, DatasetSpec(name="ramps", labels=LABELS, lesion_free=["normal"]), table)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"dataset": str(data), "method": "x", "seed": 0}))
    splits = pd.DataFrame(
        {
            "case_id": list("abcde"),
            "group": range(5),
            "split": ["test"] * 3 + ["validation"] * 2,
            "fold": pd.array([pd.NA] * 3 + [0, 1], dtype="Int64"),
            "use_mask": [True, True, True, True, False],
        }
    )
    write_splits(folder / "splits.csv", splits)
    return folder


def use(monkeypatch: pytest.MonkeyPatch, predictor: Pointing) -> Pointing:
    monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)
    return predictor


def test_evaluation_records_the_evidence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = use(monkeypatch, Pointing())
    found = evaluate_run(run, *open_run(run), resamples=20).summary["evidence"]
    assert (found["images"], found["pixel_auroc"], found["validation_images"]) == (2, 0.5, 1)
    assert "e" not in predictor.seen, "hidden masks stay hidden"
    assert json.loads((run / "evaluation.json").read_text())["evidence"] == found


def test_on_validation_the_cut_is_chosen_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Pointing())
    summary = evaluate_run(run, *open_run(run), split="validation", resamples=20).summary
    assert (summary["evidence"]["images"], summary["evidence"]["dice"]) == (1, 1)


def test_without_learnt_evidence_nothing_is_recorded(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Pointing(learnt=False))
    assert "evidence" not in evaluate_run(run, *open_run(run), resamples=20).summary


def test_an_unreadable_image_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Pointing())
    (run.parent / "data" / "d.png").write_bytes(b"no image")
    with pytest.raises(DxsegError, match="case 'd'"):
        evaluate_run(run, *open_run(run), resamples=20)
