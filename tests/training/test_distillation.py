"""Distillation: who teaches what, and that a student learns it, also after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dxseg import distill
from dxseg.config.presets import read_config
from dxseg.config.schema import RunConfig
from dxseg.data.batches.batches import BatchDataset
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.evaluation.evaluate import evaluate_run, open_run
from dxseg.inference.model_folder import load_model_folder
from dxseg.models.segmentation_model import SegmenterOutput
from dxseg.training import distillation, pseudo_labels, run_folder
from dxseg.training.datamodule.training_data import TrainingData, prepare_training_data
from dxseg.training.modules.multitask import MultitaskModule
from dxseg.training.pseudo_labels import make_pseudo_labels, predict_averaged
from dxseg.training.run import read_run, train_run

Configure = Callable[..., RunConfig]

QUICK = {"stage2": {"steps": 2, "steps_per_epoch": 1, "warmup_steps": 1}}


class Brightness(nn.Module):
    """A teacher that finds bright places, and nothing on dark disks."""

    def __init__(self, cut: float) -> None:
        super().__init__()
        self.cut = cut
        self.prompts: list[Tensor | None] = []

    def forward(self, x: Tensor, label_prompt: Tensor | None = None) -> SegmenterOutput:
        self.prompts.append(label_prompt)
        return SegmenterOutput((x - self.cut) * 8)


@pytest.fixture(scope="module")
def data(disks: Path, configure: Configure) -> TrainingData:
    """Four true masks; no lesion-free image is among those whose mask may be used."""
    dataset = Dataset.load(disks)
    config = configure("sks-evidence")
    train = dataset.cases["split"].eq("train").to_numpy()
    lesions = np.flatnonzero(train & dataset.cases["mask"].ne("").to_numpy())
    use = np.zeros(len(dataset), dtype=bool)
    use[lesions[:4]] = True
    splits = dataset.cases[["case_id", "split"]].assign(use_mask=use, group=range(len(use)))
    return prepare_training_data(dataset, splits, config, ((0.5,), (0.25,)))


@pytest.fixture
def free(disks: Path) -> np.ndarray[Any, np.dtype[np.bool_]]:
    dataset = Dataset.load(disks)
    train = dataset.cases["split"].eq("train").to_numpy()
    return dataset.lesion_free.to_numpy(dtype=bool)[train]


class TestTeaching:
    def test_the_label_filters_the_teacher(
        self, data: TrainingData, free: Any, tmp_path: Path
    ) -> None:
        """Labels go round none, bright, dark; this teacher sees bright disks alone."""
        reports: list[tuple[int, int]] = []
        taught = make_pseudo_labels(
            Brightness(1.2),  # type: ignore[arg-type]
            data,
            free,
            tmp_path / "masks.npy",
            lambda done, total: reports.append((done, total)),
            label_prompts=False,
        )
        labels = taught.cases.labels
        masks = [taught.cases.mask(case) for case in range(len(taught.cases))]
        true = dict(zip(data.mask_train.image_rows.tolist(), range(4), strict=True))
        for case, mask in enumerate(masks):
            assert mask.shape == (1, 64, 64)
            row = int(taught.cases.image_rows[case])
            if row in true:  # although the teacher finds nothing on the dark ones
                assert np.array_equal(mask[0], data.mask_train.mask(true[row]) * 255)
            elif labels[case] == 0:
                assert not mask.any()
            else:
                assert labels[case] == 1
                assert mask.max() > 127
        dark_left_out = int((data.label_train.labels == 2).sum()) - int(
            (data.mask_train.labels == 2).sum()
        )
        assert taught.counts["left_out"] == dark_left_out > 0
        assert taught.counts == {
            "true_mask": 4,
            "lesion_free": 8,
            "teacher_mask": len(taught.cases) - 12,
            "left_out": dark_left_out,
        }
        assert taught.lesion_free.tolist() == (labels == 0).tolist()
        assert reports[-1] == (12, 12)  # neither true nor lesion-free

    def test_unlabelled_images_are_left_out(
        self, data: TrainingData, free: Any, tmp_path: Path
    ) -> None:
        silent = replace(data.label_train, labels=np.full(24, -1))
        taught = make_pseudo_labels(
            Brightness(-9),  # type: ignore[arg-type]  # finds something everywhere
            replace(data, label_train=silent),
            np.zeros_like(free),
            tmp_path / "masks.npy",
            lambda *_: None,
            label_prompts=False,
        )
        assert taught.counts == {
            "true_mask": 4,
            "lesion_free": 0,
            "teacher_mask": 0,
            "left_out": 20,
        }

    def test_a_teacher_that_learnt_labels_is_told_those_of_the_images_it_is_asked_about(
        self, data: TrainingData, free: Any, tmp_path: Path
    ) -> None:
        prompts: dict[bool, list[Any]] = {}
        for told in (True, False):
            network: Any = Brightness(1.2)
            path = tmp_path / f"{told}.npy"
            make_pseudo_labels(network, data, free, path, lambda *_: None, label_prompts=told)
            prompts[told] = network.prompts
        heard = torch.cat(prompts[True])
        assert sorted(heard.tolist()) == [1] * 12 + [2] * 12  # 12 cases and their mirror images
        assert set(prompts[False]) == {None}

    def test_masks_stay_soft_in_a_batch(
        self, data: TrainingData, free: Any, tmp_path: Path
    ) -> None:
        taught = make_pseudo_labels(
            Brightness(1.2),  # type: ignore[arg-type]
            data,
            free,
            tmp_path / "masks.npy",
            lambda *_: None,
            label_prompts=False,
        )
        batches = BatchDataset(taught.cases, data.preprocessing, None)
        batch = batches[[(row, 0) for row in range(len(taught.cases))]]
        soft = batch["mask"]
        assert soft.shape[1:] == (1, 64, 64)
        assert 0 <= soft.min() < soft.max() <= 1
        assert ((soft > 0.05) & (soft < 0.95)).any()
        row = int(np.flatnonzero(taught.cases.labels == 1)[-1])
        pixels = batch["image"][row : row + 1]
        wanted = predict_averaged(Brightness(1.2), pixels, None)[0]  # type: ignore[arg-type]
        assert torch.allclose(soft[row], wanted, atol=0.5 / 255 + 1e-4)

    def test_the_average_of_a_flip_does_not_depend_on_the_side(self) -> None:
        torch.manual_seed(0)
        layer = nn.Conv2d(1, 1, 3, padding=1)
        network: Any = lambda x, _: SegmenterOutput(layer(x))  # noqa: E731
        x = torch.randn(2, 1, 8, 8)
        mean = predict_averaged(network, x, None)
        assert torch.allclose(predict_averaged(network, x.flip(-1), None), mean.flip(-1), atol=1e-6)
        assert not torch.allclose(layer(x).sigmoid(), mean, atol=1e-3)


@pytest.fixture(scope="module")
def teacher(disks: Path, configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-branch run that was given four masks and learned."""
    stage = {"steps": 60, "steps_per_epoch": 20, "warmup_steps": 5, "learning_rate": 3e-3}
    config = configure(
        data={"batch_size": 8}, stage1=stage, stage2=stage, split={"masks": 4}, seed=2
    )
    run = tmp_path_factory.mktemp("teacher") / "run"
    train_run(disks, run, config)
    return run


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    run = tmp_path_factory.mktemp("student") / "run"
    return run, distill(teacher, output=run, overrides={"stage2": {"steps": 120}})


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
        source = record["distilled_from"]
        assert source["run"] == str(teacher.resolve())
        assert source["training_images"]["true_mask"] == 4
        assert source["training_images"]["lesion_free"] == 8
        assert (run / "splits.csv").read_bytes() == (teacher / "splits.csv").read_bytes()
        config, old = read_config(run / "config.yaml"), read_config(teacher / "config.yaml")
        assert config.method == "sks-evidence-student"
        assert (config.seed, config.split, config.augment) == (old.seed, old.split, old.augment)
        assert config.stage2 == old.stage2.model_copy(update={"steps": 120})
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
        again = distill(teacher, output=student[0], overrides={"stage2": {"steps": 120}})
        assert again == student[1]

    def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(
        self, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        changes = {"stage2": {"steps": 4, "steps_per_epoch": 2, "warmup_steps": 1}}
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
            ("in the second epoch", MultitaskModule, "training_step", 3),
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


def test_one_branch_may_teach_where_its_stage_1_is_known(
    disks: Path, configure: Configure, tmp_path: Path
) -> None:
    """Not only ours: the control of the student learns by the same rules."""
    stage = QUICK["stage2"]
    config = configure("unet-stage1", stage1=stage, stage2=stage, split={"masks": 4})
    first, borrowing = tmp_path / "first", tmp_path / "borrowing"
    train_run(disks, first, config)
    train_run(disks, borrowing, config, splits_path=first / "splits.csv", stage1_run=first)
    own = distill(first, output=tmp_path / "own", overrides=QUICK)
    lent = distill(borrowing, output=tmp_path / "lent", overrides=QUICK, stage1=first)
    assert own["method"] == lent["method"] == "unet-stage1-student"
    assert own["weights_sha256"] == lent["weights_sha256"]
    with pytest.raises(UsageError, match="holds no stage 1"):
        distill(borrowing, output=tmp_path / "none", overrides=QUICK)


class TestRefusals:
    def test_a_run_of_one_branch_without_stage_1(
        self, disks: Path, configure: Configure, tmp_path: Path
    ) -> None:
        train_run(disks, tmp_path / "unet", configure("unet-scratch"))
        with pytest.raises(UsageError, match=r"holds no stage 1.*\(unet-scratch\).*--stage1"):
            distill(tmp_path / "unet", output=tmp_path / "student")
        assert not (tmp_path / "student").exists()

    def test_a_run_that_is_not_finished(self, tmp_path: Path) -> None:
        with pytest.raises(DxsegError, match=r"run\.json: not found"):
            distill(tmp_path / "none", output=tmp_path / "student")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"model": {"backbone": "resnet18"}}, "model: a student has"),
            ({"seed": 5}, "seed: a student has"),
            ({"data": {"image_size": 32}}, r"data\.image_size: a student has"),
            ({"stage2": {"steps": 0}}, r"stage2\.steps"),
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
    words = ["--set", "stage2.steps=2", "--set", "stage2.steps_per_epoch=2"]
    result = cli("distill", teacher, "--out", student, *words)
    assert result.exit_code == 0, result.output
    assert "4 masks" in result.stdout
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
