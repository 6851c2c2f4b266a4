"""Labels of whole studies: stage 1 finds which slices show the lesion, and nothing else is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dxseg.config.schema import DataConfig, RunConfig
from dxseg.config.stages import StageConfig
from dxseg.data.batches.batches import CaseDataset, Studies
from dxseg.data.readers.images import read_image
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.errors import DxsegError
from dxseg.inference.model_folder import read_info
from dxseg.inference.predictor import Predictor
from dxseg.metrics.image_level import auroc, lesion_probability
from dxseg.models.factory import Task
from dxseg.models.mil_pooling import study_probabilities
from dxseg.training.datamodule.stage_data import LabelBatches
from dxseg.training.datamodule.training_data import TrainingData, prepare_training_data
from dxseg.training.modules.classification import ClassificationModule
from dxseg.training.run import train_run
from dxseg.training.run_splits import resolve_splits
from dxseg.training.stages import train_stage1, validate_selection
from dxseg.training.trainer import TrainerSettings

SIZE, SLICES = 32, 8
VOLUMES = {"train": 32, "validation": 8, "test": 20}
STATISTICS = ((0.5,), (0.25,))


def make_volumes(root: Path) -> Dataset:
    """Every other volume has a disk in two neighboring slices; only the volumes have labels.

    One training slice with the disk has its mask, and one without it an empty mask.
    """
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, split in enumerate(s for s, count in VOLUMES.items() for _ in range(count)):
        label = ("none", "tumour")[number % 2]
        first = int(generator.integers(SLICES - 1))
        row, column = generator.uniform(10, SIZE - 10, 2)
        disk = (y - row) ** 2 + (x - column) ** 2 < 64
        for index in range(SLICES):
            shows = label == "tumour" and index in (first, first + 1)
            # Brightness differs between volumes, so that no mean gives the lesion away.
            image = generator.normal(90 + 10 * (number % 3), 15, (SIZE, SIZE)) + 90 * disk * shows
            case = f"v{number:02}_{index}"
            pixels = image.clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"images/{case}.png")
            mask = f"masks/{case}.png" if label == "tumour" and number < 6 else ""
            if mask:
                Image.fromarray((disk & shows).astype(np.uint8) * 255).save(root / mask)
            volume = f"v{number:02}"
            values = (case, f"images/{case}.png", mask, label, "study", volume, index, split, shows)
            rows.append(values)
    names = ["case_id", "image", "mask", "label", "label_level", "volume_id", "slice_index"]
    table = pd.DataFrame(rows, columns=[*names, "split", "shows"])
    table[["case_id", "shows"]].to_csv(root / "truth.csv", index=False)
    spec = DatasetSpec(name="volumes", labels=["none", "tumour"], lesion_free=["none"])
    return Dataset.create(root, spec, table.drop(columns="shows"))


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset; not to be written to."""
    return make_volumes(tmp_path_factory.mktemp("volumes") / "data").root


@pytest.fixture(scope="session")
def relabelled(
    volumes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[pd.DataFrame], Path]:
    """The dataset with other columns, its files where they were."""

    def make(cases: pd.DataFrame, **spec: Any) -> Path:
        old = Dataset.load(volumes).spec
        root = tmp_path_factory.mktemp("relabelled")
        new = old.model_copy(update={"roots": [str(volumes)], **spec})
        return Dataset.create(root, new, cases).root

    return make


@pytest.fixture(scope="session")
def study_config(configure: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    def make(**changes: Any) -> RunConfig:
        data = {"image_size": SIZE, "batch_size": 16} | changes.pop("data", {})
        return configure(data=data, **changes)

    return make


def data_of(root: Path, config: RunConfig) -> TrainingData:
    dataset = Dataset.load(root)
    return prepare_training_data(dataset, resolve_splits(dataset, config, None), config, STATISTICS)


def truth_of(volumes: Path) -> pd.Series[bool]:
    return pd.read_csv(volumes / "truth.csv", index_col="case_id")["shows"]


@pytest.fixture(scope="session")
def slice_scores(
    volumes: Path,
    study_config: Callable[..., RunConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Path], pd.DataFrame]:
    """Lesion probability of the test slices after a stage 1, and whether they show the lesion."""

    def score(root: Path) -> pd.DataFrame:
        stage = {"steps": 40, "steps_per_epoch": 40, "warmup_steps": 5, "learning_rate": 3e-3}
        config = study_config(stage1=stage, data={"batch_size": 32})
        data = data_of(root, config)
        folder = tmp_path_factory.mktemp("stage1")
        settings = TrainerSettings(config.device, config.seed)
        coarse = train_stage1(data, config, folder, settings)[0].eval()
        dataset = Dataset.load(root)
        test = dataset.cases[dataset.cases["split"].eq("test")]
        pixels = [read_image(dataset.image_path(row)) for row in test.itertuples()]
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            logits = coarse(data.preprocessing.normalize(images)).label_logits
        table = test[["case_id", "volume_id"]].set_index("case_id")
        shows = truth_of(volumes).reindex(table.index)
        return table.assign(score=1 - logits.softmax(1)[:, 0].numpy(), shows=shows)

    return score


def test_stage_1_finds_the_slices_from_labels_of_volumes(
    volumes: Path,
    relabelled: Callable[..., Path],
    slice_scores: Callable[[Path], pd.DataFrame],
) -> None:
    found = slice_scores(volumes)
    assert auroc(found["shows"], found["score"]) > 0.9
    cases = Dataset.load(volumes).cases
    told = slice_scores(relabelled(cases.assign(label_level="image", mask=_lesions_only(volumes))))
    # A control that is told that every slice of such a volume shows the lesion believes it.
    ill = found["volume_id"].isin(found["volume_id"][found["shows"]]) & ~found["shows"]
    assert found["score"][ill].mean() < 0.3
    assert told["score"][ill].mean() > found["score"][ill].mean() + 0.2


def _lesions_only(volumes: Path) -> pd.Series[str]:
    """The mask column without the empty masks."""
    cases = Dataset.load(volumes).cases
    return cases["mask"].where(truth_of(volumes)[cases["case_id"]].to_numpy(), "")


def test_only_the_label_of_its_study_is_given_to_a_slice(
    volumes: Path, study_config: Callable[..., RunConfig]
) -> None:
    arrays = data_of(volumes, study_config()).label_train
    cases = Dataset.load(volumes).cases
    ill = cases.loc[cases["split"].eq("train"), "label"].eq("tumour").to_numpy()
    assert (arrays.labels[ill] == -1).all()
    assert (arrays.labels[~ill] == 0).all()
    assert arrays.studies is not None
    assert ((arrays.studies.numbers >= 0) == ill).all()
    assert (arrays.studies.labels == np.where(ill, 1, -1)).all()


def test_an_empty_mask_in_an_ill_volume_is_a_lesion_free_image(
    volumes: Path, relabelled: Callable[..., Path], study_config: Callable[..., RunConfig]
) -> None:
    config = study_config()
    data = data_of(volumes, config)
    masks = data.mask_train
    empty = [not masks.mask(case).any() for case in range(len(masks))]
    assert data.without_lesion_masks.tolist() == empty
    assert np.count_nonzero(np.logical_not(empty)) == 6
    cases = Dataset.load(volumes).cases
    nothing = cases["mask"].where(_lesions_only(volumes).eq(""), "")
    with pytest.raises(DxsegError, match="no training case with a lesion has a mask"):
        data_of(relabelled(cases.assign(mask=nothing)), config)


class TestBatches:
    def arrays(self, labels: list[int], numbers: list[int], study: int = 1) -> CaseDataset:
        rows = np.arange(len(labels))
        of_study = np.array(numbers)
        studies = Studies(of_study, np.where(of_study >= 0, study, -1), rows)
        images = np.zeros((len(labels), 32, 32, 1), np.uint8)
        return CaseDataset(images, rows, None, rows, np.array(labels), 1, studies)

    def test_half_of_a_batch_is_of_studies_where_there_are_both(self) -> None:
        arrays = self.arrays([0] * 20 + [-1] * 20, [-1] * 20 + [0] * 10 + [1] * 10)
        plan = LabelBatches.plan(arrays, DataConfig(batch_size=16, bag_size=4))
        assert (plan.image_count, plan.study_count) == (8, 2)
        for batch in plan.batches(StageConfig(steps=3), seed=0)[1]:
            rows = [row for row, _ in batch]
            assert sum(row < 20 for row in rows) == 8
            assert 6 <= sum(row >= 20 for row in rows) <= 8
        assert plan.labels.tolist() == [0] * 20 + [1, 1]

    def test_every_label_has_the_same_say_in_the_batches(self) -> None:
        arrays = self.arrays([0] * 20 + [-1] * 20, [-1] * 20 + [0] * 10 + [1] * 10)
        plan = LabelBatches.plan(arrays, DataConfig(batch_size=16, bag_size=4))
        # Eight images of the one label stand against two studies of the other.
        balance = plan.balance(Task(1, 1, 2))
        assert balance.tolist() == pytest.approx([10 / 16, 10 / 4])

    @pytest.mark.parametrize(
        ("labels", "numbers", "counts"),
        [([-1] * 8, [0, 0, 0, 0, 1, 1, 1, 1], (0, 2)), ([0, 1] * 4, [-1] * 8, (8, 0))],
    )
    def test_one_kind_alone(
        self, labels: list[int], numbers: list[int], counts: tuple[int, int]
    ) -> None:
        data = DataConfig(batch_size=8, bag_size=4)
        plan = LabelBatches.plan(self.arrays(labels, numbers), data)
        assert (plan.image_count, plan.study_count) == counts
        assert all(len(batch) == 8 for batch in plan.batches(StageConfig(steps=2), seed=0)[1])

    def test_a_batch_smaller_than_a_sample_still_has_a_study(self) -> None:
        arrays = self.arrays([0, 0, -1, -1], [-1, -1, 0, 0])
        plan = LabelBatches.plan(arrays, DataConfig(batch_size=2, bag_size=8))
        assert (plan.image_count, plan.study_count) == (1, 1)


class TestModule:
    """What ClassificationModule makes of logits whose network is left out."""

    class Coarse(torch.nn.Module):
        lesion_free = (0,)

        def __init__(self, multi_label: bool) -> None:
            super().__init__()
            self.multi_label = multi_label

    def module(self, config: RunConfig, multi_label: bool = False) -> ClassificationModule:
        coarse: Any = self.Coarse(multi_label)
        return ClassificationModule(coarse, torch.ones(2), 2, config.stage1)

    def test_images_and_studies_in_one_batch(self, configure: Callable[..., RunConfig]) -> None:
        logits = torch.tensor([[1.0, 0.0], [0.0, 4.0], [0.0, -2.0], [0.0, 1.0], [0.0, -1.0]])
        label = torch.tensor([0, -1, -1, -1, 1])
        study, of_study = torch.tensor([-1, 5, 5, 2, -1]), torch.tensor([-1, 1, 1, 1, -1])
        module = self.module(configure())
        pooled, target = module._pool_studies(logits, label, study, of_study)
        assert target.tolist() == [0, 1, 1, 1]
        mean = np.log((np.exp(4) + np.exp(-2)) / 2)
        margins = (pooled[:, 1] - pooled[:, 0]).tolist()
        assert margins == pytest.approx([-1, -1, 1, mean], rel=1e-5)

    def test_several_labels_a_study(self, configure: Callable[..., RunConfig]) -> None:
        nan = float("nan")
        logits = torch.tensor([[3.0, -3.0], [3.0, 5.0], [2.0, -2.0]])
        label = torch.tensor([[nan, nan], [nan, nan], [1.0, 0.0]])
        of_study = torch.tensor([[0.0, 1.0], [0.0, 1.0], [nan, nan]])
        module = self.module(configure(), multi_label=True)
        pooled, target = module._pool_studies(logits, label, torch.tensor([0, 0, -1]), of_study)
        assert target.tolist() == [[1, 0], [0, 1]]
        assert pooled[0].tolist() == [2, -2]
        assert pooled[1].tolist() == pytest.approx([3, np.log((np.exp(-3) + np.exp(5)) / 2)])


@pytest.fixture(scope="session")
def mixed(volumes: Path, relabelled: Callable[..., Path]) -> Path:
    """Every third volume has labels of its slices, the others have study labels."""
    cases = Dataset.load(volumes).cases
    own = cases["volume_id"].str[1:].astype(int) % 3 == 0
    shows = truth_of(volumes)[cases["case_id"]].to_numpy()
    label = np.where(shows, "tumour", "none")
    changed = cases.assign(
        label=cases["label"].where(~own, label), label_level=np.where(own, "image", "study")
    )
    return relabelled(changed)


def test_a_run_on_mixed_levels_ends_the_same_after_an_interruption(
    mixed: Path,
    study_config: Callable[..., RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = study_config(stage1={"steps": 6, "steps_per_epoch": 2, "warmup_steps": 1})
    whole = tmp_path / "whole"
    train_run(mixed, whole, config)
    table = pd.read_csv(whole / "stage1/metrics.csv")
    assert table["val_auroc"].between(0, 1).all()
    assert table["val_loss"].gt(0).all()

    class PulledPlugError(BaseException):
        pass

    step, calls = ClassificationModule.training_step, [0]

    def failing(self: Any, batch: Any, batch_idx: int) -> torch.Tensor:
        calls[0] += 1
        assert (batch["study"] >= 0).any()
        assert (batch["label"] >= 0).any()
        if calls[0] == 4:
            raise PulledPlugError
        return step(self, batch, batch_idx)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationModule, "training_step", failing)
        with pytest.raises(PulledPlugError):
            train_run(mixed, run, config)
    train_run(mixed, run, config)
    for name in ("stage1/coarse.safetensors", "model/model.safetensors"):
        mine, theirs = load_file(run / name), load_file(whole / name)
        assert [key for key in theirs if not torch.equal(mine[key], theirs[key])] == [], name
    pd.testing.assert_frame_equal(pd.read_csv(run / "stage1/metrics.csv"), table)
    _check_gate(whole, mixed)


def _check_gate(run: Path, root: Path) -> None:
    """The gate lets through the images and the studies whose labels say that there is a lesion."""
    dataset, predictor = Dataset.load(root), Predictor.from_folder(run / "model")
    cases = dataset.cases[dataset.cases["split"].eq("validation")]
    cases = cases[cases["label"].eq("tumour")]
    images = [read_image(dataset.image_path(row)) for row in cases.itertuples()]
    diagnoses = pd.Series([one.label_probabilities for one in predictor.predict(images)])
    split_by_study = diagnoses.groupby(
        np.where(cases["label_level"].eq("study"), cases["volume_id"], cases["case_id"])
    )
    assert len(split_by_study) < len(cases)
    found = [
        lesion_probability(
            study_probabilities(
                list(one), predictor.info.labels, lesion_free=["none"], multi_label=False
            ),
            ["none"],
            False,
        )
        for _, one in split_by_study
    ]
    assert read_info(run / "model").rule_out_threshold == pytest.approx(min(0.5, *found), abs=1e-5)


def test_studies_are_labels_that_validation_can_choose_by(
    volumes: Path, relabelled: Callable[..., Path], study_config: Callable[..., RunConfig]
) -> None:
    config = study_config(stage1={"checkpoint": "best"})
    validate_selection(data_of(volumes, config), config)
    cases = Dataset.load(volumes).cases
    ill_only = cases["split"].ne("validation") | cases["label"].eq("tumour")
    with pytest.raises(DxsegError, match="images with different labels"):
        validate_selection(data_of(relabelled(cases[ill_only]), config), config)
