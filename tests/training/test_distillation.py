"""Distillation: who teaches what, and that a student learns it, also after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dxseg import distill, evaluate
from dxseg.config.presets import read_config
from dxseg.config.schema import RunConfig
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.evaluation.evaluate import evaluate_run, open_run
from dxseg.inference.model_folder import load_model_folder, read_info
from dxseg.training import distillation, pseudo_labels, run_folder, sequence
from dxseg.training.modules.student import StudentModule
from dxseg.training.run import read_run, train_run

Configure = Callable[..., RunConfig]

STAGE = {"steps": 2, "steps_per_epoch": 1, "warmup_steps": 1}
QUICK = {"student": STAGE}
LONG = {"student": {"steps": 80, "steps_per_epoch": 80}}


@pytest.fixture(scope="module")
def teacher(disks: Path, configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-branch run that was given four masks and learned."""
    stage = {"steps": 30, "steps_per_epoch": 10, "warmup_steps": 5, "learning_rate": 3e-3}
    config = configure(
        data={"batch_size": 8}, stage1=stage, stage2=stage, split={"masks": 4}, seed=2
    )
    run = tmp_path_factory.mktemp("teacher") / "run"
    train_run(disks, run, config)
    return run


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    run = tmp_path_factory.mktemp("student") / "run"
    return run, distill(teacher, output=run, overrides=LONG)


def weights_of(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model" / "model.safetensors")


class TestStudent:
    def test_it_learns_what_the_teacher_knows(
        self, teacher: Path, student: tuple[Path, dict[str, Any]]
    ) -> None:
        taught = evaluate_run(teacher, *open_run(teacher), resamples=100).summary
        learnt = evaluate_run(student[0], *open_run(student[0]), resamples=100).summary
        assert taught["dice_lesion"] > 0.5
        assert learnt["dice_lesion"] > 0.9 * taught["dice_lesion"]
        assert learnt["auroc_label"] > 0.8

    def test_it_has_one_branch_and_names_labels(
        self, teacher: Path, student: tuple[Path, dict[str, Any]]
    ) -> None:
        big, _ = load_model_folder(teacher / "model")
        small, info = load_model_folder(student[0] / "model")
        sizes = [sum(p.numel() for p in network.parameters()) for network in (small, big)]
        assert sizes[0] < 0.6 * sizes[1]
        assert info.model.architecture == "unet"
        assert info.model.has_label_head
        assert info.rule_out_threshold is not None
        with torch.no_grad():
            labels = small(torch.zeros(1, 1, 64, 64)).label_logits
        assert labels is not None
        assert labels.shape == (1, 3)

    def test_the_folder_is_a_run_on_the_same_split(
        self, teacher: Path, student: tuple[Path, dict[str, Any]]
    ) -> None:
        run, record = student
        assert read_run(run) == record
        assert record["distilled_from"]["run"] == str(teacher.resolve())
        assert record["training_images"]["true_mask"] == 4
        assert record["training_images"]["lesion_free"] == 8
        assert (run / "splits.csv").read_bytes() == (teacher / "splits.csv").read_bytes()
        config, old = read_config(run / "config.yaml"), read_config(teacher / "config.yaml")
        assert config.method == "sks-evidence-student"
        assert (config.seed, config.split, config.augment) == (old.seed, old.split, old.augment)
        assert config.stage2 == old.stage2
        assert config.student is not None
        assert config.student.steps == 80
        assert not list(run.rglob("*.ckpt*"))
        assert not list(run.rglob("*.npy"))

    def test_a_finished_student_is_returned_at_once(
        self,
        teacher: Path,
        student: tuple[Path, dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def forbidden(*_: Any, **__: Any) -> None:
            raise AssertionError("worked again")

        monkeypatch.setattr(distillation, "prepare_training_data", forbidden)
        again = distill(teacher, output=student[0], overrides=LONG)
        assert again == student[1]

    def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(
        self, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        changes = {"student": {"steps": 4, "steps_per_epoch": 2, "warmup_steps": 1}}
        distill(teacher, output=tmp_path / "whole", overrides=changes)

        class PulledPlugError(BaseException):
            pass

        def after(original: Callable[..., Any], calls: int) -> Callable[..., Any]:
            count = [0]

            def wrapped(*arguments: Any, **named: Any) -> Any:
                count[0] += 1
                if count[0] > calls:
                    raise PulledPlugError
                return original(*arguments, **named)

            return wrapped

        for moment, owner, name, calls in (
            ("asking the teacher", pseudo_labels, "predict_averaged", 1),
            ("in the second epoch", StudentModule, "training_step", 3),
            ("before the model is written", run_folder, "save_model_folder", 0),
        ):
            run = tmp_path / moment
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, after(getattr(owner, name), calls))
                with pytest.raises(PulledPlugError):
                    distill(teacher, output=run, overrides=changes)
            assert not (run / "run.json").exists()
            distill(teacher, output=run, overrides=changes)
            mine, theirs = weights_of(run), weights_of(tmp_path / "whole")
            assert [key for key in theirs if not torch.equal(mine[key], theirs[key])] == [], moment


@pytest.mark.parametrize("keeps", [True, False])
def test_one_branch_may_teach_where_its_stage_1_is_known(
    keeps: bool, disks: Path, configure: Configure, tmp_path: Path
) -> None:
    """Not only ours: the control of the student learns by the same rules.

    A model that keeps its classifier needs no other run; one without does.
    """
    config = configure(
        "unet-stage1",
        stage1=STAGE,
        stage2=STAGE,
        split={"masks": 4},
        model={"classifier": keeps},
    )
    first, borrowing = tmp_path / "first", tmp_path / "borrowing"
    train_run(disks, first, config)
    train_run(disks, borrowing, config, splits_path=first / "splits.csv", stage1_run=first)
    own = distill(first, output=tmp_path / "own", overrides=QUICK)
    source = None if keeps else first
    lent = distill(borrowing, output=tmp_path / "lent", overrides=QUICK, stage1=source)
    assert own["method"] == lent["method"] == "unet-stage1-student"
    assert own["weights_sha256"] == lent["weights_sha256"]
    small, info = load_model_folder(tmp_path / "own" / "model")
    assert info.model.label_head
    assert not info.model.classifier, "a student decides by the label head it was trained with"
    assert not hasattr(small, "coarse")
    if not keeps:
        with pytest.raises(UsageError, match="contains no classifier"):
            distill(borrowing, output=tmp_path / "none", overrides=QUICK)
        weights = first / "stage1" / "coarse.safetensors"
        weights.write_bytes(weights.read_bytes() + b"trained again")
        with pytest.raises(DxsegError, match="started from other weights than"):  # it is finished
            distill(borrowing, output=tmp_path / "lent", overrides=QUICK, stage1=first)


def test_the_student_of_c1_with_the_classifier_keeps_it_beside(
    disks: Path, configure: Configure, tmp_path: Path
) -> None:
    config = configure("unet-classifier", stage1=STAGE, stage2=STAGE, split={"masks": 4})
    train_run(disks, tmp_path / "teacher", config)
    distill(tmp_path / "teacher", output=tmp_path / "student", overrides=QUICK)
    mine, theirs = (weights_of(tmp_path / name) for name in ("student", "teacher"))
    kept = [name for name in theirs if name.startswith("coarse.")]
    assert kept
    assert all(torch.equal(mine[name], theirs[name]) for name in kept)
    _, info = load_model_folder(tmp_path / "student" / "model")
    assert (info.model.classifier, info.model.label_head) == (True, False)
    assert info.model.encoder_init == "pretrained"


def test_a_teacher_that_learned_no_label_has_a_student_without_label_head(
    disks: Path, configure: Configure, tmp_path: Path
) -> None:
    train_run(disks, tmp_path / "unet", configure("unet-scratch", stage2=STAGE))
    record = distill(tmp_path / "unet", output=tmp_path / "student", overrides=QUICK)
    assert record["stage1_from"] is None
    _, info = load_model_folder(tmp_path / "student" / "model")
    assert not info.model.has_label_head
    assert info.model.encoder_init == "random"


class TestMethodsWithAStudent:
    """The stage of a student in a run is the one that `distill` trains."""

    def run(self, disks: Path, output: Path, configure: Configure, **options: Any) -> Any:
        config = configure(
            "unet-stage1-student", stage1=STAGE, stage2=STAGE, student=STAGE, split={"masks": 4}
        )
        return train_run(disks, output, config, **options)

    def test_it_ends_with_the_student_and_keeps_the_teacher(
        self, disks: Path, configure: Configure, tmp_path: Path
    ) -> None:
        record = self.run(disks, tmp_path / "whole", configure)
        assert {"stage2", "student", "training_images"} <= record.keys()
        assert record["seconds"].keys() == {"stage1", "stage2", "student"}
        _, teacher = load_model_folder(tmp_path / "whole" / "stage2" / "model")
        _, info = load_model_folder(tmp_path / "whole" / "model")
        assert (teacher.model.label_head, info.model.label_head) == (False, True)
        kept = tmp_path / "whole" / "stage2" / "model"
        of_teacher = evaluate(tmp_path / "whole", model=kept, output=tmp_path / "teacher")
        assert of_teacher["weights_sha256"] == teacher.weights_sha256
        assert not list((tmp_path / "whole").rglob("*.npy"))
        plain = configure("unet-stage1", stage1=STAGE, stage2=STAGE, split={"masks": 4})
        train_run(disks, tmp_path / "plain", plain)
        distill(tmp_path / "plain", output=tmp_path / "distilled", overrides=QUICK)
        assert same_weights(tmp_path / "whole", tmp_path / "distilled")

    def test_it_continues_after_a_kill_and_from_another_run(
        self, disks: Path, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.run(disks, tmp_path / "whole", configure)

        def unplugged(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(StudentModule, "training_step", unplugged)
            with pytest.raises(KeyboardInterrupt):
                self.run(disks, tmp_path / "killed", configure)
        self.run(disks, tmp_path / "killed", configure)
        assert same_weights(tmp_path / "whole", tmp_path / "killed")
        plain = configure("unet-stage1", stage1=STAGE, stage2=STAGE, split={"masks": 4})
        train_run(disks, tmp_path / "plain", plain)
        again = self.run(disks, tmp_path / "again", configure, stage2_run=tmp_path / "plain")
        assert again["stage2_from"] == str((tmp_path / "plain").resolve())
        assert same_weights(tmp_path / "whole", tmp_path / "again")

    def test_a_student_teaches_the_next(
        self, disks: Path, configure: Configure, tmp_path: Path
    ) -> None:
        config = configure("sks-student", stage1=STAGE, stage2=STAGE, student=STAGE | {"rounds": 2})
        record = train_run(disks, tmp_path / "run", config)
        assert {"student", "student2"} <= record.keys()
        first, _ = load_model_folder(tmp_path / "run" / "student" / "model")
        last, _ = load_model_folder(tmp_path / "run" / "model")
        assert type(first) is type(last)


def same_weights(one: Path, other: Path) -> bool:
    mine, theirs = weights_of(one), weights_of(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


class TestRefusals:
    def test_a_run_that_is_not_finished(self, tmp_path: Path) -> None:
        with pytest.raises(DxsegError, match=r"run\.json: not found"):
            distill(tmp_path / "none", output=tmp_path / "student")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"model": {"backbone": "resnet18"}}, "model: a student has"),
            ({"seed": 5}, "seed: a student has"),
            ({"data": {"image_size": 32}}, r"data\.image_size: a student has"),
            ({"data": {"sliding_window": True}}, r"data\.sliding_window: a student has"),
            ({"student": {"steps": 0}}, r"student\.steps"),
            ({"stage2": {"steps": 5}}, "stage2: a student has"),
        ],
    )
    def test_what_is_the_teachers(
        self, change: dict[str, Any], said: str, teacher: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match=said):
            distill(teacher, output=tmp_path / "student", overrides=change)
        assert not (tmp_path / "student").exists()

    def test_another_teacher_in_the_same_folder(self, teacher: Path, tmp_path: Path) -> None:
        distill(teacher, output=tmp_path / "student", overrides=QUICK)
        other = tmp_path / "other"
        shutil.copytree(teacher, other)
        network, info = load_model_folder(other / "model")
        next(network.parameters()).data.add_(1)
        run_folder.save_model_folder(other / "model", network, info)
        with pytest.raises(DxsegError, match="holds a student of another run"):
            distill(other, output=tmp_path / "student", overrides=QUICK)

    def test_an_ensemble_of_one_split_teaches(self, teacher: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        shutil.copytree(teacher, other)
        network, info = load_model_folder(other / "model")
        next(network.parameters()).data.add_(0.1)
        run_folder.save_model_folder(other / "model", network, info)
        record = distill([teacher, other], output=tmp_path / "student", overrides=QUICK)
        assert record["distilled_from"]["run"] == str(teacher.resolve())
        [second] = record["distilled_from"]["others"]
        assert second["run"] == str(other.resolve())
        assert second["weights_sha256"] == read_info(other / "model").weights_sha256
        with pytest.raises(DxsegError, match="holds a student of another run"):
            distill(teacher, output=tmp_path / "student", overrides=QUICK)
        with pytest.raises(UsageError, match="given twice"):
            distill([teacher, teacher], output=tmp_path / "twice", overrides=QUICK)
        run = json.loads((other / "run.json").read_text())
        (other / "run.json").write_text(json.dumps({**run, "splits_sha256": "0"}))
        with pytest.raises(UsageError, match="has another split"):
            distill([teacher, other], output=tmp_path / "leak", overrides=QUICK)

    def test_each_teacher_of_an_ensemble_brings_what_it_sees(
        self, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Networks on different backbones were trained with other statistics."""
        other, seen = tmp_path / "other", []
        shutil.copytree(teacher, other)
        network, info = load_model_folder(other / "model")
        next(network.parameters()).data.add_(0.1)
        changed = info.preprocessing.model_copy(update={"mean": (0.449,), "std": (0.226,)})
        update = {"preprocessing": changed, "mask_temperature": 2.0}
        run_folder.save_model_folder(other / "model", network, info.model_copy(update=update))

        def stop(teachers: list[pseudo_labels.Teacher], *_: Any, **__: Any) -> None:
            seen.extend((one.preprocessing, one.mask_temperature) for one in teachers)
            raise KeyboardInterrupt

        monkeypatch.setattr(sequence, "make_pseudo_labels", stop)
        with pytest.raises(KeyboardInterrupt):
            distill([teacher, other], output=tmp_path / "student", overrides=QUICK)
        assert seen == [(info.preprocessing, info.mask_temperature), (changed, 2.0)]

    def test_a_dataset_that_has_changed(self, teacher: Path, disks: Path, tmp_path: Path) -> None:
        copied = tmp_path / "copied"
        shutil.copytree(disks, copied, ignore=shutil.ignore_patterns(".cache"))
        dataset = Dataset.load(copied)
        dataset.cases.loc[0, "label"] = "dark"
        dataset.save()
        with pytest.raises(DxsegError, match="changed since"):
            distill(teacher, output=tmp_path / "student", dataset=copied)


def test_the_command_distils_and_the_other_verbs_take_the_student(
    cli: Callable[..., Any], teacher: Path, tmp_path: Path
) -> None:
    student = tmp_path / "student"
    words = ["--set", "student.steps=2", "--set", "student.steps_per_epoch=2"]
    result = cli("distill", teacher, "--out", student, *words)
    assert result.exit_code == 0, result.output
    assert "4 training masks" in result.stdout
    assert "8 lesion-free images" in result.stdout
    for command in (["evaluate", teacher], ["evaluate", student], ["report", student]):
        result = cli(*command)
        assert result.exit_code == 0, result.output
    result = cli("compare", teacher, student)
    assert result.exit_code == 0, result.output
    assert "sks-evidence-student" in result.stdout
    record = json.loads((student / "evaluation.json").read_text())
    assert record["auroc_label"] is not None
    splits = read_splits(student / "splits.csv", Dataset.load(read_run(student)["dataset"]))
    write_splits(tmp_path / "again.csv", splits)
    assert (tmp_path / "again.csv").read_bytes() == (student / "splits.csv").read_bytes()
