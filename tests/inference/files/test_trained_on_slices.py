"""A network trained on the slices of volumes: what it does with volumes, and what it needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from dxseg.commands.import_volumes import import_volumes
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.inference.model_folder import load_model_folder, read_info, save_model_folder
from dxseg.inference.predictor import Predictor
from dxseg.io.csv_io import read_table
from volume_phantom import SHAPE, TURNS, ct, save, turned


@pytest.fixture(scope="module")
def volume_run(
    cli: Callable[..., Any],
    tiny: Callable[..., list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A tiny run on the slices of six volumes, beside them (`in/`) and their dataset (`data/`)."""
    folder = tmp_path_factory.mktemp("volumes")
    for number in range(6):
        voxels, labels = ct(number, tumour=number % 3 < 2)
        save(folder / f"in/{number}.nii.gz", voxels, TURNS[7 * number])
        save(folder / f"in/{number}_mask.nii.gz", labels, TURNS[7 * number])
    options = {"window": "50,400", "neighbours": 1, "mask_values": {2: "tumour"}}
    import_volumes(folder / "in", folder / "data", **options)
    changes = tiny("model.encoder_init=random", "data.image_size=32")
    result = cli(
        "train", folder / "data", "--out", folder / "run", "--method", "sks-evidence", *changes
    )
    assert result.exit_code == 0, result.output
    return folder


def test_a_trained_model_does_with_a_volume_what_it_does_with_its_slices(
    cli: Callable[..., Any], volume_run: Path, tmp_path: Path
) -> None:
    run, data = volume_run / "run", volume_run / "data"
    assert read_info(run / "model").slicing == Dataset.load(data).spec.slicing
    # An untrained network finds nothing: a threshold amid its probabilities makes masks to compare.
    segmenter, info = load_model_folder(run / "model")
    probe = Predictor(segmenter, info)
    [(_, seen)] = probe.stream([("", data / "images/4/0005.tif")])
    threshold = float(np.median(seen.probabilities))
    save_model_folder(
        tmp_path / "model", segmenter, info.model_copy(update={"threshold": threshold})
    )
    for inputs, output in ((volume_run / "in/4.nii.gz", "v"), (data / "images/4", "s")):
        result = cli("predict", tmp_path / "model", inputs, "--out", tmp_path / output)
        assert result.exit_code == 0, result.output
    written = np.asarray(nibabel.load(tmp_path / "v/masks/4.nii.gz").dataobj)
    slices = [read_mask(tmp_path / f"s/masks/{index:04d}.png", 1) for index in range(SHAPE[2])]
    # Axial: slices to the head, rows to the back, columns to the left.
    expected = np.stack(slices).transpose(2, 1, 0)[::-1, ::-1]
    np.testing.assert_array_equal(written, turned(expected, TURNS[28]))
    assert 0 < expected.mean() < 1
    [volume] = read_table(tmp_path / "v/predictions.csv").to_dict("records")
    assert volume["name"] == "4.nii.gz"
    each = read_table(tmp_path / "s/predictions.csv").to_dict("records")
    odds = np.mean([float(row["p_tumour"]) / float(row["p_no tumour"]) for row in each])
    assert float(volume["p_tumour"]) == pytest.approx(odds / (1 + odds), abs=1e-5)


def test_models_of_before_slicing_are_read(volume_run: Path, tmp_path: Path) -> None:
    text = json.loads((volume_run / "run/model/model.json").read_text())
    del text["slicing"]
    (tmp_path / "model.json").write_text(json.dumps(text))
    assert read_info(tmp_path).slicing is None


@pytest.mark.parametrize("change", [{"neighbours": 0}, {"bits": 16}])
def test_slicing_that_does_not_fit_the_network_is_refused(
    volume_run: Path, tmp_path: Path, change: dict[str, int]
) -> None:
    text = json.loads((volume_run / "run/model/model.json").read_text())
    text["slicing"] |= change
    (tmp_path / "model.json").write_text(json.dumps(text))
    with pytest.raises(DxsegError, match=r"slicing gives .* channels"):
        read_info(tmp_path)
