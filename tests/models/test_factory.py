"""Networks by name, and the mapping of configurations onto them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dxseg.config.network import ModelConfig
from dxseg.config.presets import load_config, method_names
from dxseg.data.preprocessing import Preprocessing
from dxseg.errors import UsageError
from dxseg.inference.model_folder import load_model_folder, save_model_folder
from dxseg.inference.model_info import ModelInfo
from dxseg.models import SKS, EvidencePrompt, FeatureFusion, LongSkip, create_model
from dxseg.models.baselines import BaselineModel
from dxseg.models.factory import Task, build_coarse_branch, build_model

TASK = Task(channels=1, mask_classes=1, labels=3)
SMALL: dict[str, Any] = {
    "backbone": "mobilenetv3_small_050",
    "decoder_channels": [16, 16, 8, 8, 8],
}


def model_config(method: str, **changes: Any) -> ModelConfig:
    return load_config("cpu", method, {"model": SMALL | changes}).model


def images(count: int, channels: int = 1) -> Tensor:
    return torch.randn(count, channels, 64, 64, generator=torch.Generator().manual_seed(0))


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


@pytest.mark.parametrize("method", method_names())
def test_a_model_folder_gives_the_same_network_back(method: str, tmp_path: Path) -> None:
    config = model_config(method)
    torch.manual_seed(0)
    segmenter = build_model(config, TASK, pretrained=False).eval()
    preprocessing = Preprocessing(image_size=64, channels=1, mean=(0.5,), std=(0.25,))
    info = ModelInfo(
        model=config, preprocessing=preprocessing, labels=["a", "b", "c"], mask_classes=["m"]
    )
    save_model_folder(tmp_path, segmenter, info)
    again, told = load_model_folder(tmp_path)
    assert told.model == config
    x = images(2)
    with torch.no_grad():
        assert torch.equal(again(x).mask_logits, segmenter(x).mask_logits)


@pytest.mark.parametrize(
    ("method", "architecture", "options"),
    [
        ("sks", "sks", {"labels": 3, "coarse_weights": None}),
        ("unet", "unet", {}),
        ("unet-multitask", "unet", {"labels": 3}),
        ("manet", "manet", {}),
    ],
)
def test_a_method_is_what_create_model_builds(
    method: str, architecture: str, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    configured = build_model(model_config(method), TASK, pretrained=False)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"in_channels": 1, "decoder_channels": SMALL["decoder_channels"]}
    created = create_model(
        architecture, SMALL["backbone"], encoder_weights=None, **sizes, **options
    )
    assert type(created) is type(configured)
    assert same(created, configured)


def test_every_setting_of_the_two_branches_reaches_them() -> None:
    skips = {"feature_share": False, "resolution_compensation": False, "long": False}
    changes = {"skips": skips | {"evidence": True}, "coarse_learning_rate_scale": 0.1}
    task = Task(2, 4, 5, multi_label=True, lesion_free=(1, 3))
    network = build_model(
        model_config("sks", shared_encoder_levels=2, **changes), task, pretrained=False
    )
    assert isinstance(network, SKS)
    assert network.share is None
    assert [type(prompt) for prompt in network.prompts] == [EvidencePrompt]
    assert network.shared_encoder_levels == 2
    assert not network.coarse_frozen
    assert (network.coarse.labels, network.coarse.multi_label) == (5, True)
    assert network.coarse.lesion_free == (1, 3)
    assert network.coarse.encoder.in_channels == 2
    assert network.head.out_channels == 4
    plain = build_model(model_config("sks"), task, pretrained=False)
    assert isinstance(plain, SKS)
    assert isinstance(plain.share, FeatureFusion)
    assert [type(prompt) for prompt in plain.prompts] == [LongSkip]
    assert plain.coarse_frozen


def test_weights_are_copied_from_stage_one_as_the_configuration_says() -> None:
    torch.manual_seed(5)
    stage1 = build_coarse_branch(model_config("sks-evidence"), TASK, pretrained=False)

    def built(method: str, **changes: Any) -> Any:
        torch.manual_seed(6)
        config = model_config(method, **changes)
        return build_model(config, TASK, stage1=stage1, pretrained=False)

    sks = built("sks-evidence")
    assert same(sks.coarse, stage1)
    assert same(sks.encoder, stage1.encoder)
    sks.encoder.body.conv_stem.weight.data.zero_()
    assert stage1.encoder.body.conv_stem.weight.any()  # a copy, not the same memory
    control = built("sks-no-labels")
    assert not same(control.coarse, stage1)
    assert not same(control.encoder, stage1.encoder)
    mixed = built("sks", encoder_init="random")
    assert same(mixed.coarse, stage1)
    assert not same(mixed.encoder, stage1.encoder)
    assert same(built("unet-stage1").encoder.model, stage1.encoder.body)
    assert not same(built("unet").encoder.model, stage1.encoder.body)
    assert same(built("unet-stage1").coarse, stage1)
    beside = built("unet-classifier")
    assert same(beside.coarse, stage1)
    assert not same(beside.encoder.model, stage1.encoder.body)
    student = built("unet-stage1", label_head=True, classifier=False)
    assert same(student.label_head, stage1.global_head)


@pytest.mark.parametrize("method", ["sks-evidence", "unet"])
def test_packaged_backbone(method: str) -> None:
    """The `cpu` preset itself, weights included."""
    config = load_config("cpu", method).model
    segmenter = build_model(config, Task(3, 1, 3), pretrained=True).eval()
    with torch.no_grad():
        assert segmenter(images(1, 3)).mask_logits.shape == (1, 1, 64, 64)


def test_names_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match="'unet3': expected one of sks, unet, unetplusplus, manet"):
        create_model("unet3", "resnet18")
    with pytest.raises(UsageError, match="backbone = 'resnet'"):
        create_model("unet", "resnet")
    with pytest.raises(UsageError, match="encoder weights 'noisy-student': expected 'imagenet'"):
        create_model("unet", "resnet18", encoder_weights="noisy-student")  # type: ignore[arg-type]


def test_baselines_take_no_options_of_the_two_branches() -> None:
    with pytest.raises(TypeError, match="shared_encoder_levels"):
        create_model("unet", "resnet18", encoder_weights=None, shared_encoder_levels=1)
    assert isinstance(create_model("unet", "resnet18", encoder_weights=None), BaselineModel)


def test_networks_need_nothing_else_of_the_package() -> None:
    code = (
        "import sys, dxseg.models as models\n"
        "models.SKS('test_efficientnet', 3, encoder_weights=None, coarse_weights=None)\n"
        "loaded = [name for name in sys.modules if name.startswith('dxseg.')]\n"
        "print(*sorted({name.split('.')[1] for name in loaded}))\n"
        "print({'lightning', 'pydantic', 'pandas', 'cyclopts'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["errors models", "set()"]
