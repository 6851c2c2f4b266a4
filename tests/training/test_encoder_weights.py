"""Encoders that start from a file: its digest is recorded, and a model does not need it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from dxseg import distill
from dxseg.config.presets import load_config
from dxseg.config.schema import RunConfig
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.model_folder import load_model_folder
from dxseg.io.atomic import sha256_file
from dxseg.models.factory import Task, build_coarse_branch, build_segmenter
from dxseg.training.run import train_run
from dxseg.training.run_record import read_run

Configure = Callable[..., RunConfig]
BACKBONE = "lcnet_050"
BUDGET = {"split": {"masks": 4}}
TASK = Task(channels=1, mask_classes=1, labels=3, lesion_free=(0,))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model(BACKBONE, pretrained=False).state_dict(), path)
    return path


def own(weights: Path) -> dict[str, str]:
    return {"backbone": BACKBONE, "encoder_weights": str(weights)}


def test_a_run_records_the_digest_and_its_model_needs_no_file(
    weights: Path, disks: Path, configure: Configure, tmp_path: Path
) -> None:
    config = configure("unet", model=own(weights), **BUDGET)
    run = train_run(disks, tmp_path / "run", config)
    assert run["encoder_weights_sha256"] == sha256_file(weights)
    weights.unlink()
    network, info = load_model_folder(tmp_path / "run" / "model")
    assert info.model.encoder_weights is None, "the path of one machine is no part of a model"
    assert network(torch.zeros(1, 1, 64, 64)).mask_logits.isfinite().all()
    assert read_run(tmp_path / "run") == train_run_again(disks, tmp_path / "run", config, weights)


def train_run_again(disks: Path, run: Path, config: RunConfig, weights: Path) -> object:
    """A finished run is returned without its file."""
    assert not weights.exists()
    return train_run(disks, run, config)


def test_a_file_that_has_changed_or_gone_is_refused(
    weights: Path, disks: Path, configure: Configure, tmp_path: Path
) -> None:
    config = configure("unet", model=own(weights), **BUDGET)
    gone = configure("unet", model=own(tmp_path / "none.pth"), **BUDGET)
    with pytest.raises(DxsegError, match=r"none\.pth: not found"):
        train_run(disks, tmp_path / "run", gone)
    assert not (tmp_path / "run" / "config.yaml").exists()
    train_run(disks, tmp_path / "run", config)
    save_file({"other": torch.zeros(1)}, weights)
    longer = configure("unet-selftrained", model=own(weights), **BUDGET)
    with pytest.raises(DxsegError, match="other encoder weights; give a run"):
        train_run(disks, tmp_path / "longer", longer, stage2_run=tmp_path / "run")
    with pytest.raises(DxsegError, match=r"has changed since .*run was trained"):
        distill(tmp_path / "run", output=tmp_path / "student")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(DxsegError, match="has changed since"):
        train_run(disks, tmp_path / "run", config)


@pytest.mark.parametrize("method", ["unet", "sks-no-labels"])
def test_every_pretrained_encoder_starts_from_it(method: str, weights: Path) -> None:
    changes = {"model": own(weights)}
    model = load_config("cpu", method, changes).model
    network = build_segmenter(model, TASK)
    stage1 = build_coarse_branch(model, TASK, pretrained=True)
    bodies = [stage1.encoder.body]
    bodies += (
        [network.encoder.body, network.coarse.encoder.body]
        if method != "unet"
        else [network.network.encoder.model]
    )
    name = "blocks.0.0.conv_dw.weight"
    wanted = timm_weights(weights)[name]
    assert all(torch.equal(body.state_dict()[name], wanted) for body in bodies)


def timm_weights(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_a_file_that_nothing_starts_from_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing starts from encoder_weights"):
        load_config("cpu", "unet-scratch", {"model": {"encoder_weights": "some.pth"}})
