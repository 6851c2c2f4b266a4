from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from pydantic import ValidationError

from dxseg.config.network import ModelConfig, SkipsConfig
from dxseg.data.preprocessing import Preprocessing
from dxseg.errors import DxsegError
from dxseg.inference.model_folder import (
    INFO_FILE,
    INFO_LIMIT,
    WEIGHTS_FILE,
    load_model_folder,
    save_model_folder,
)
from dxseg.inference.model_info import ModelInfo
from dxseg.models.factory import Task, build_model
from dxseg.models.segmentation_model import SegmentationModel

TINY = ModelConfig(backbone="test_efficientnet", decoder_channels=(8, 8, 4, 4, 4))


def info_for(model: ModelConfig, **changes: object) -> ModelInfo:
    values = {
        "model": model,
        "preprocessing": Preprocessing(image_size=64, channels=1, mean=(0.5,), std=(0.25,)),
        "labels": ["normal", "lésion"],
        "lesion_free": ["normal"],
        "threshold": 0.4,
        "training": {"seed": 3},
    }
    return ModelInfo.model_validate(values | changes)


def network(model: ModelConfig, seed: int = 0) -> SegmentationModel:
    torch.manual_seed(seed)
    segmenter = build_model(model, Task(1, 1, 2, lesion_free=(0,)), pretrained=False)
    for name, tensor in segmenter.state_dict().items():
        if name.endswith("running_mean"):
            tensor.uniform_(-1, 1)
    return segmenter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model_folder(tmp_path / "model", network(TINY), info_for(TINY))
    return tmp_path / "model"


def edit(folder: Path, **changes: object) -> None:
    content = json.loads((folder / INFO_FILE).read_text())
    (folder / INFO_FILE).write_text(json.dumps(content | changes))


def reseal(folder: Path, data: bytes) -> None:
    (folder / WEIGHTS_FILE).write_bytes(data)
    edit(folder, weights_sha256=hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    "model",
    [
        TINY,
        TINY.model_copy(update={"architecture": "unet"}),
        TINY.model_copy(
            update={
                "skips": SkipsConfig(feature_share=False, resolution_compensation=False, long=False)
            }
        ),
    ],
    ids=["sks", "unet", "evidence only"],
)
def test_a_model_folder_comes_back_bit_by_bit(tmp_path, model):
    segmenter = network(model).to(memory_format=torch.channels_last).eval()
    written = save_model_folder(tmp_path, segmenter, info_for(model))
    loaded, info = load_model_folder(tmp_path)
    assert info == written
    assert info.model == model
    assert info.threshold == 0.4
    assert info.labels == ["normal", "lésion"]
    assert not loaded.training
    before, after = segmenter.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    x = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        expected = segmenter.to(memory_format=torch.contiguous_format)(x).mask_logits
        assert torch.equal(expected, loaded(x).mask_logits)
    assert sorted(path.name for path in tmp_path.iterdir()) == [INFO_FILE, WEIGHTS_FILE]


def test_every_flipped_or_missing_byte_of_the_weights_is_noticed(folder):
    weights = folder / WEIGHTS_FILE
    whole = weights.read_bytes()
    for position in (0, 9, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        weights.write_bytes(damaged)
        with pytest.raises(DxsegError, match="SHA-256 differs"):
            load_model_folder(folder)
    for cut in (whole[:-1], whole[:100], b"", whole + b"\0"):
        weights.write_bytes(cut)
        with pytest.raises(DxsegError, match=r"model\.safetensors"):
            load_model_folder(folder)


def test_new_weights_beside_an_old_description_are_refused(folder, tmp_path):
    save_model_folder(tmp_path / "other", network(TINY, seed=1), info_for(TINY))
    (folder / WEIGHTS_FILE).write_bytes((tmp_path / "other" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(DxsegError, match="belongs to another model"):
        load_model_folder(folder)


def test_pickle_is_never_opened_even_with_the_right_digest(folder, tmp_path):
    marker = tmp_path / "executed"
    code = f"c__builtin__\nopen\n(V{marker}\nVw\ntR."
    reseal(folder, code.encode())
    with pytest.raises(DxsegError, match="not a safetensors file"):
        load_model_folder(folder)
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pt")
    reseal(folder, (tmp_path / "x.pt").read_bytes())
    with pytest.raises(DxsegError, match="not a safetensors file"):
        load_model_folder(folder)
    assert not marker.exists()


def test_weights_of_another_network_are_told_tensor_by_tensor(folder):
    tensors = safetensors.torch.load((folder / WEIGHTS_FILE).read_bytes())
    names = sorted(tensors)
    del tensors[names[0]]
    tensors["stranger"] = torch.zeros(1)
    tensors["head.weight"] = tensors["head.weight"].double()
    tensors["head.bias"] = torch.zeros(7)
    reseal(folder, safetensors.torch.save(tensors))
    with pytest.raises(DxsegError) as caught:
        load_model_folder(folder)
    for part in (f"{names[0]} is missing", "stranger is unexpected", "float64", "(7,), expected"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 1}, "expected 2"),
        ({"format_version": "2"}, "expected 2"),
        ({"threshold": 1.5}, "threshold"),
        ({"mask_temperature": 0.0}, "mask_temperature"),
        ({"label_temperature": 1e9}, "label_temperature"),
        ({"label_temperature": float("nan")}, "label_temperature"),
        ({"stranger": 1}, "stranger"),
        ({"labels": ["a", "a"]}, "twice"),
        ({"lesion_free": ["unknown"]}, "lesion_free"),
        ({"weights_sha256": "../../etc"}, "SHA-256"),
        ({"mask_classes": []}, "mask_classes"),
        ({"labels": ["normal", "b", "c"]}, "do not fit"),
    ],
)
def test_a_wrong_description_is_refused_by_field(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(DxsegError, match=message):
        load_model_folder(folder)


@pytest.mark.parametrize("backbone", ["hf-hub:someone/model", "local-dir:/tmp", "no_such_net", ""])
def test_a_backbone_that_would_be_fetched_or_is_unknown_is_refused(folder, backbone):
    content = json.loads((folder / INFO_FILE).read_text())
    edit(folder, model=content["model"] | {"backbone": backbone})
    with pytest.raises(DxsegError, match="backbone"):
        load_model_folder(folder)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 500_000, b'{"a": NaN}', b"{}" * 2]
)
def test_descriptions_that_are_no_object_are_refused(folder, text):
    (folder / INFO_FILE).write_bytes(text)
    with pytest.raises(DxsegError, match=r"model\.json"):
        load_model_folder(folder)


def test_a_huge_description_is_not_parsed_and_not_written(folder):
    edit(folder, training={"note": "x" * INFO_LIMIT})
    with pytest.raises(DxsegError, match="larger than"):
        load_model_folder(folder)
    with pytest.raises(DxsegError, match="shorten training"):
        save_model_folder(
            folder, network(TINY), info_for(TINY, training={"note": "x" * INFO_LIMIT})
        )


@pytest.mark.parametrize("name", [INFO_FILE, WEIGHTS_FILE])
def test_an_absent_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DxsegError, match=name):
        load_model_folder(folder)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    segmenter = network(TINY)
    with torch.no_grad():
        segmenter.head.bias.fill_(float("nan"))
    with pytest.raises(DxsegError, match=r"head\.bias is not finite"):
        save_model_folder(tmp_path / "model", segmenter, info_for(TINY))
    assert not (tmp_path / "model").exists()


def test_lesion_classes_are_mask_classes():
    info = info_for(TINY, mask_classes=["liver", "tumor"])
    assert info.lesion_names == ["liver", "tumor"], "as in models of earlier versions"
    values = info.model_dump() | {"lesion_classes": ["tumor"]}
    assert ModelInfo.model_validate(values).lesion_names == ["tumor"]
    with pytest.raises(ValidationError, match="lesion_classes names"):
        ModelInfo.model_validate(values | {"lesion_classes": ["cyst"]})
