"""Runs refuse what is wrong, and read what they may."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dxseg.config.schema import RunConfig
from dxseg.data.splits.holdout import make_splits
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.training.run import train_run
from dxseg.training.run_record import read_run
from dxseg.training.run_splits import resolve_splits
from trained_runs import same_weights

SCRATCH = "unet-scratch"


class TestRefusals:
    def test_another_configuration_in_the_same_folder(self, train: Callable[..., Path]) -> None:
        run = train()
        before = (run / "config.yaml").read_bytes()
        with pytest.raises(DxsegError, match=r"another configuration \(seed: 0 there, 1 asked\)"):
            train(seed=1)
        assert (run / "config.yaml").read_bytes() == before
        train(data={"workers": 1, "cache_dir": str(run)})  # changes no weight

    def test_another_dataset_in_the_same_folder(
        self, train: Callable[..., Path], copied: Path
    ) -> None:
        train()
        dataset = Dataset.load(copied)
        dataset.cases.loc[0, "label"] = "dark"
        dataset.save()
        with pytest.raises(DxsegError, match="another dataset"):
            train(dataset=copied)

    def test_a_folder_of_something_else(self, train: Callable[..., Path], tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.tex").write_text("mine")
        with pytest.raises(DxsegError, match="not empty and not a run"):
            train()
        assert (tmp_path / "run" / "thesis.tex").read_text() == "mine"

    def test_a_stage_one_that_has_seen_the_test_cases(
        self, train: Callable[..., Path], finished: Path, copied: Path
    ) -> None:
        dataset = Dataset.load(copied)
        swapped = {"train": "test", "test": "train"}
        dataset.cases["split"] = dataset.cases["split"].replace(swapped)
        dataset.save()
        with pytest.raises(DxsegError, match=r"trained on \d\d cases .* validation or test"):
            train("unet-stage1", dataset=copied, stage1_run=finished)

    def test_a_stage_one_that_has_seen_the_patient_of_a_test_case(
        self, train: Callable[..., Path], finished: Path, copied: Path
    ) -> None:
        """The image itself was not in its training, another one of the same person was."""
        dataset = Dataset.load(copied)
        test = dataset.cases["split"] == "test"
        case = dataset.cases.index[dataset.cases["split"] == "train"][0]
        patient = dataset.cases.loc[test, "patient_id"].iloc[0]
        dataset.cases.loc[case, ["patient_id", "split"]] = [patient, "test"]
        dataset.save()
        with pytest.raises(DxsegError, match="trained on 2 cases"):
            train("unet-stage1", dataset=copied, stage1_run=finished)

    def test_a_stage_one_of_another_network(
        self, train: Callable[..., Path], finished: Path
    ) -> None:
        with pytest.raises(DxsegError, match="another backbone"):
            train("sks", stage1_run=finished, model={"decoder_channels": [8] * 5})

    def test_a_damaged_stage_one(
        self, train: Callable[..., Path], finished: Path, tmp_path: Path
    ) -> None:
        copy = tmp_path / "other"
        shutil.copytree(finished, copy)
        weights = copy / "stage1" / "coarse.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"hurt")
        with pytest.raises(DxsegError, match=r"coarse\.safetensors"):
            train("unet-stage1", stage1_run=copy)
        weights.unlink()
        with pytest.raises(DxsegError, match=r"coarse\.safetensors"):
            train("unet-stage1", stage1_run=copy)

    def test_no_lesion_with_a_mask(self, train: Callable[..., Path], copied: Path) -> None:
        dataset = Dataset.load(copied)
        dataset.cases.loc[dataset.cases["split"] == "train", "mask"] = ""
        dataset.save()
        with pytest.raises(DxsegError, match="no training case with a lesion has a mask"):
            train(dataset=copied)

    @pytest.mark.parametrize("method", ["sks", "unet-multitask"])
    def test_no_label_to_learn_from(
        self, method: str, train: Callable[..., Path], copied: Path
    ) -> None:
        dataset = Dataset.load(copied)
        lesions = dataset.cases["label"] != "none"
        dataset.cases["label"] = ""
        dataset.cases.loc[lesions & (dataset.cases["split"] != "train"), "label"] = "dark"
        dataset.save()
        with pytest.raises(DxsegError, match="need image-level labels, and no training case"):
            train(method, dataset=copied)

    def test_a_training_that_diverges(self, train: Callable[..., Path]) -> None:
        wild = {"steps": 6, "steps_per_epoch": 3, "learning_rate": 1e30, "warmup_steps": 0}
        with pytest.raises(DxsegError, match="diverged"):
            train(stage2=wild)

    @pytest.mark.parametrize("choice", [{"checkpoint": "best"}, {"early_stopping_patience": 1}])
    def test_a_choice_by_validation_without_validation_masks(
        self, train: Callable[..., Path], choice: dict[str, Any]
    ) -> None:
        with pytest.raises(DxsegError, match="stage2: checkpoint 'best' and early stopping"):
            train(stage2=choice, split={"validation_masks": 0})

    def test_a_choice_by_validation_without_two_labels(
        self, train: Callable[..., Path], copied: Path
    ) -> None:
        dataset = Dataset.load(copied)
        held_out = (dataset.cases["split"] == "validation") & (dataset.cases["label"] != "dark")
        dataset.cases.loc[held_out, "split"] = "test"
        dataset.save()
        with pytest.raises(DxsegError, match="stage1: checkpoint 'best'"):
            train("sks", dataset=copied, stage1={"checkpoint": "best"})

    def test_other_splits_than_those_of_a_finished_run(
        self, disks: Path, configure: Callable[..., RunConfig], train: Callable[..., Path]
    ) -> None:
        run = train()
        table = pd.read_csv(run / "splits.csv")
        write_splits(run.parent / "same.csv", table)
        train_run(disks, run, configure(SCRATCH), splits_path=run.parent / "same.csv")
        other = table.assign(split=table["split"].replace({"validation": "test"}))
        write_splits(run.parent / "other.csv", other)
        with pytest.raises(DxsegError, match=r"was started on other splits than .*other\.csv"):
            train_run(disks, run, configure(SCRATCH), splits_path=run.parent / "other.csv")

    def test_splits_that_use_a_mask_that_no_case_has(
        self, copied: Path, configure: Callable[..., RunConfig], tmp_path: Path
    ) -> None:
        """It would be learned as an empty one."""
        dataset = Dataset.load(copied)
        splits = make_splits(dataset).assign(use_mask=True)
        write_splits(tmp_path / "splits.csv", splits)
        lesion = dataset.cases["mask"].ne("") & dataset.cases["split"].eq("train")
        dataset.cases.loc[lesion.idxmax(), "mask"] = ""
        dataset.save()
        name = dataset.cases["case_id"][lesion.idxmax()]
        with pytest.raises(
            DxsegError, match=f"for 1 cases whose mask is not known, such as '{name}"
        ):
            resolve_splits(Dataset.load(copied), configure(), tmp_path / "splits.csv")


class TestWhatIsRead:
    def test_hidden_masks_and_test_cases_are_never_read(
        self, train: Callable[..., Path], copied: Path
    ) -> None:
        """Their files are garbage, and training does not notice."""
        budget = {"masks": 4, "validation_masks": 2}
        clean = train("unet-stage1", split=budget)
        splits = read_splits(clean / "splits.csv", Dataset.load(copied))
        assert (splits["use_mask"] & (splits["split"] == "train")).sum() == 4 + 8  # lesion-free too
        dataset = Dataset.load(copied)
        for case, split, use in zip(
            dataset.cases.itertuples(), splits["split"], splits["use_mask"], strict=True
        ):
            mask = dataset.mask_path(case)
            if mask is not None and (split == "test" or not use):
                mask.write_bytes(b"not to be read")
            if split == "test":
                dataset.image_path(case).write_bytes(b"not to be read")
        dirty = train("unet-stage1", name="dirty", dataset=copied, split=budget)
        assert same_weights(clean, dirty)

    def test_a_fraction_of_masks(self, train: Callable[..., Path]) -> None:
        run = train(split={"masks": 0.25})
        assert read_run(run)["cases"]["train_masks"] == 4
