"""What is evaluated of a volume is what `dxseg predict` writes for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brightness import Maker
from dxseg.data.readers.volume_files import read_volume_file
from dxseg.data.splits.split_table import write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.evaluate import evaluate_run
from dxseg.evaluation.stream import by_volume, predict_rows
from dxseg.inference.components import ComponentFilter
from dxseg.inference.files.volumes import predict_volume
from dxseg.inference.predictor import Predictor
from volume_import import bring
from volume_phantom import SPACING, TURNS, ct, save

SMOOTHED = {"smoothing_mm": SPACING[2]}
SMALLEST = {"components": ComponentFilter(by_volume=True, min_volume_mm3=60.0)}
IN_SPACE = SMOOTHED | {"components": ComponentFilter(by_volume=True, largest_only=True)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose test split has three volumes, 24 x 32 pixels, five slices of one unannotated."""
    folder = tmp_path_factory.mktemp("volumes")
    generator = np.random.default_rng(0)
    for number in range(3):
        voxels, labels = ct(number)
        noisy = voxels + generator.normal(0, 15, voxels.shape).astype(np.int16)
        save(folder / f"in/volume-{number}.nii.gz", noisy, TURNS[7 * number])
        save(folder / f"in/segmentation-{number}.nii.gz", labels, TURNS[7 * number])
    (folder / "labels.csv").write_text("volume_id,annotated_slices\nvolume-2,0-4\n")
    bring(folder / "in", folder / "data", labels=folder / "labels.csv")
    data = Dataset.load(folder / "data")
    (folder / "run").mkdir()
    record = {"dataset": str(folder / "data"), "method": "x", "seed": 0}
    (folder / "run/run.json").write_text(json.dumps(record))
    splits = pd.DataFrame({"case_id": data.cases["case_id"], "split": "test"})
    splits["group"] = pd.factorize(data.cases["volume_id"])[0]
    splits["fold"] = pd.array([pd.NA] * len(splits), dtype="Int64")
    splits["use_mask"] = data.has_mask
    write_splits(folder / "run/splits.csv", splits)
    return folder / "run"


def model(data: Dataset, **options: object) -> Predictor:
    return Maker()(slicing=data.spec.slicing, size=32, labels=(), threshold=0.9, **options)


@pytest.mark.parametrize("options", [{}, SMOOTHED, SMALLEST, IN_SPACE])
def test_volumes_are_evaluated_as_they_are_predicted(run: Path, options: dict) -> None:
    data = Dataset.load(run.parent / "data")
    predictor = model(data, **options)
    evaluation = evaluate_run(run, data, predictor, resamples=10, output=run.parent / "out")
    rows = evaluation.per_volume.set_index("volume_id")
    assert list(rows.index) == ["volume-0", "volume-1"]
    for name, row in rows.iterrows():
        source = run.parent / "in" / f"{name}.nii.gz"
        found = predict_volume(predictor, read_volume_file(source)).mask
        assert row["predicted_voxels"] == np.count_nonzero(found) > 100
        truth = np.asarray(ct(int(str(name)[-1]))[1]) == 2
        assert row["true_voxels"] == np.count_nonzero(truth)
    lesions = rows["lesions_predicted"].tolist()
    if options in (SMALLEST, IN_SPACE):
        assert lesions == [1, 1]
    if not options:
        assert min(lesions) > 1


def test_slices_that_are_not_evaluated_still_help_their_neighbors(run: Path) -> None:
    data = Dataset.load(run.parent / "data")
    predictor = model(data, **IN_SPACE)
    cases = by_volume(data.cases)
    every = dict(predict_rows(predictor, data, cases))
    some = cases[cases["volume_id"].eq("volume-2") & cases["slice_index"].lt(5)]
    few = dict(predict_rows(predictor, data, some))
    assert list(few) == some["case_id"].tolist()
    for name, prediction in few.items():
        np.testing.assert_array_equal(prediction.mask, every[name].mask)
    alone = dict(predict_rows(model(data), data, some))
    assert any((alone[name].mask != few[name].mask).any() for name in few)
