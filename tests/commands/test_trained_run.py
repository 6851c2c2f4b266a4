"""What `dxseg train` says at its end: what a run learned from, what it cost, and what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dxseg.commands.results import TrainedRun

RUN = Path("runs/method")


def record(**changes: Any) -> dict[str, Any]:
    """Of a student whose stages 1 and 2 an earlier call finished."""
    return {
        "method": "sks-student",
        "seed": 3,
        "cases": {"train_masks": 35, "validation_masks": 10, "train_labels": 400},
        "stage1_from": None,
        "stage2_from": None,
        "stage1": {"step": 300.0, "seconds": 183.0},
        "stage2": {"step": 150.0, "seconds": 95.4},
        "student": {"step": 450.0, "seconds": 270.0},
        "student2": {"step": 450.0, "seconds": 30.0},
        "seconds": {"stage1": 0.0, "stage2": 0.1, "student": 280.0, "student2": 31.0},
        "training_images": {"teacher_mask": 250, "lesion_free": 100, "left_out": 15},
    } | changes


def test_all_of_it() -> None:
    assert str(TrainedRun(record(), RUN)).splitlines() == [
        "Trained sks-student, seed 3: 35 training masks, 10 validation masks, 400 labeled training "
        "images; the student also learned from 250 pseudo-labels and 100 lesion-free images, 15 "
        "images left out.",
        "- Stage 1: 300 steps, 3 min",
        "- Stage 2: 150 steps, 95 s",
        "- Student: 450 steps, 5 min",
        "- Student 2: 450 steps, 31 s",
        "Model: runs/method/model, the network after student 2; those before it: "
        "runs/method/stage2/model, runs/method/student/model",
        "Next: dxseg evaluate runs/method",
    ]


def test_a_run_without_further_stages() -> None:
    """Stage 1 is not needed, or another run's: nothing is said of its cost."""
    seconds = {"stage1": 0.0, "stage2": 100.0}
    plain = record(seconds=seconds, stage1_from="runs/other", training_images=None)
    lines = str(TrainedRun(plain, RUN)).splitlines()
    assert lines[1:-1] == [
        "- Stage 2: 150 steps, 100 s",
        "Model: runs/method/model, the network after stage 2",
    ]
    without = {key: value for key, value in plain.items() if key not in ("stage1", "stage1_from")}
    assert str(TrainedRun(without, RUN)).splitlines()[1:] == lines[1:]


def test_self_training_from_another_run() -> None:
    seconds = {"stage2": 0.0, "stage1": 0.0, "self_training": 400.0}
    taken = record(seconds=seconds, stage2_from="runs/c2", self_training={"step": 300.0})
    text = str(TrainedRun(taken, RUN))
    assert "Stage 2:" not in text
    assert "- Self-training: 300 steps, 7 min" in text
    assert "the network after self-training; those before it: runs/c2/model" in text


def test_a_student_of_a_finished_run() -> None:
    teachers = {"run": "/runs/one", "others": [{"run": "/runs/two"}]}
    distilled = record(seconds={"student": 50.0}, distilled_from=teachers)
    text = str(TrainedRun(distilled, RUN))
    assert "the network after student; those before it: /runs/one/model, /runs/two/model" in text


def test_a_record_of_an_earlier_version() -> None:
    old = record(cases={"train_masks": 1, "validation_masks": 2}, training_images=None)
    assert "1 training masks, 2 validation masks.\n" in str(TrainedRun(old, RUN))
