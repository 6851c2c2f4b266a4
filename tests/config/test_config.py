"""Configuration: merging, overriding, recipes, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dxseg.config.presets import (
    PRESETS,
    RENAMED,
    load_config,
    merge,
    method_names,
    parse_overrides,
    read_config,
)
from dxseg.config.schema import RunConfig
from dxseg.config.stages import StageConfig
from dxseg.errors import DxsegError, UsageError

KEYS = st.text("abcdefgh_", min_size=1, max_size=3)
SCALARS = st.none() | st.booleans() | st.integers() | st.text("xyz ", max_size=4)
TREES = st.recursive(
    st.dictionaries(KEYS, SCALARS, max_size=4),
    lambda inner: st.dictionaries(KEYS, SCALARS | inner, max_size=4),
    max_leaves=12,
)


def leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def knobs(model: type[BaseModel] = RunConfig, path: tuple[str, ...] = ()) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from knobs(inner, (*path, name))
        else:
            yield ".".join((*path, name))


# Merging


@given(TREES)
def test_merging_nothing_or_itself_changes_nothing(tree: dict[str, Any]) -> None:
    assert merge(tree) == merge(tree, {}) == merge({}, tree) == merge(tree, tree) == tree


@given(TREES, TREES, TREES)
def test_merging_is_associative_and_leaves_its_arguments_alone(
    a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]
) -> None:
    before = deepcopy((a, b, c))
    assert merge(a, b, c) == merge(merge(a, b), c)
    assert (a, b, c) == before


@given(TREES, TREES)
def test_the_right_one_wins_and_the_rest_of_the_left_stays(
    a: dict[str, Any], b: dict[str, Any]
) -> None:
    merged = dict(leaves(merge(a, b)))
    assert merged.items() >= dict(leaves(b)).items()
    assert set(merged) <= set(dict(leaves(a))) | set(dict(leaves(b)))


def test_merging_goes_into_sections() -> None:
    base = {"stage1": {"steps": 1, "checkpoint": "last"}, "seed": 0}
    assert merge(base, {"stage1": {"steps": 2}}) == {
        "stage1": {"steps": 2, "checkpoint": "last"},
        "seed": 0,
    }


# Overrides


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, SCALARS, min_size=1, max_size=3), max_size=3))
def test_overrides_read_back_what_yaml_wrote(tree: dict[str, Any]) -> None:
    pairs = [f"{path}={yaml.safe_dump([value])[2:]}" for path, value in leaves(tree)]
    assert parse_overrides(pairs) == tree


def test_overrides_are_yaml_and_the_last_one_wins() -> None:
    pairs = ["data.cache_dir=null", "augment.scale=[0.9, 1.1]", "seed=1", "seed=2", "method=a=b"]
    assert parse_overrides(pairs) == {
        "data": {"cache_dir": None},
        "augment": {"scale": [0.9, 1.1]},
        "seed": 2,
        "method": "a=b",
    }
    assert parse_overrides([]) == {}


@pytest.mark.parametrize("pair", ["stage2.steps", "=5", "", "stage2.steps={1", "a=\tb: c: d"])
def test_malformed_overrides(pair: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse_overrides([pair])


# Recipes


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", method_names())
def test_every_method_of_every_preset_loads_and_survives_yaml(
    method: str, preset: str, tmp_path: Path
) -> None:
    config = load_config(preset, method)
    assert config.method == method
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert read_config(path) == config
    trains_itself = method.endswith(("-selftrained", "-unimatch", "-bcp"))
    assert (config.self_training is not None) == trains_itself
    assert (config.student is not None) == method.endswith("-student")
    written = dict(leaves(yaml.safe_load(config.to_yaml())))
    optional = ("self_training", "student")
    assert {key for key in written if not key.startswith(optional)} == {
        key for key in knobs() if not key.startswith(optional)
    }


def test_the_presets_are_what_they_say() -> None:
    cpu, paper = load_config("cpu"), load_config("paper")
    assert (cpu.model.backbone, cpu.data.image_size) == ("tf_efficientnet_lite0", 128)
    assert paper.model.backbone.startswith("swinv2_tiny")
    assert paper.data.image_size == 256
    thorough = load_config("cpu-thorough", "sks-student")
    assert thorough.model == load_config("cpu", "sks-student").model
    assert thorough.data.image_size == 192
    assert thorough.stages == ["stage2", "student", "student2"]


def test_a_preset_adds_no_stage_to_a_method() -> None:
    """Its values count where the method, or the user, has the stage."""
    assert load_config("cpu-thorough", "sks").stages == ["stage2"]
    added = load_config("cpu-thorough", "sks", {"self_training": {"ema_decay": 0.9}})
    assert added.self_training is not None
    assert (added.self_training.steps, added.self_training.ema_decay) == (600, 0.9)
    assert load_config("cpu-thorough", "sks-student", {"student": None}).stages == ["stage2"]
    own = load_config("cpu-thorough", "sks-student", {"student": {"rounds": 1}})
    assert own.student is not None
    assert (own.student.rounds, own.student.steps) == (1, 1200)


def test_the_methods_differ_in_what_they_are_meant_to() -> None:
    model = {method: load_config("cpu", method).model for method in method_names()}
    assert [method for method in model if model[method].requires_stage1] == [
        "sks",
        "sks-evidence",
        "unet-classifier",
        "unet-stage1",
        "unet-stage1-multitask",
        "sks-selftrained",
        "sks-evidence-selftrained",
        "unet-stage1-selftrained",
        "unet-stage1-multitask-selftrained",
        "sks-student",
        "unet-stage1-student",
        "unet-stage1-unimatch",
        "unet-stage1-bcp",
    ]
    for method in model:
        starts_there = "stage1" in (model[method].encoder_init, model[method].coarse_init)
        if model[method].architecture != "sks":
            starts_there = model[method].encoder_init == "stage1"
        assert model[method].predicts_labels or not starts_there, "no classifier is thrown away"
    for method in ("sks", "sks-selftrained"):
        assert not model[method].skips.evidence
        assert model[method.replace("sks", "sks-evidence")].skips.evidence
    assert model["unet-scratch"].encoder_init == "random"
    assert model["unet"].encoder_init == model["unetplusplus"].encoder_init == "pretrained"
    assert model["sks-no-labels"].coarse_init == "pretrained"
    assert [method for method in model if model[method].has_label_head] == [
        "sks",
        "sks-evidence",
        "unet-multitask",
        "unet-stage1-multitask",
        "sks-selftrained",
        "sks-evidence-selftrained",
        "unet-stage1-multitask-selftrained",
        "sks-student",
    ]
    assert not any(model[method].shared_encoder_levels for method in model)
    same = {"method", "model", "self_training", "student"}
    others = [load_config("cpu", method).model_dump(exclude=same) for method in method_names()]
    assert all(other == others[0] for other in others), "all else is shared"


@pytest.mark.parametrize("rival", ["unimatch", "bcp"])
def test_a_rival_differs_from_its_form_with_labels_in_the_filter(rival: str) -> None:
    alone = load_config("cpu", f"unet-{rival}").self_training
    filtered = load_config("cpu", f"unet-stage1-{rival}").self_training
    assert alone is not None
    assert filtered is not None
    assert not alone.label_filter
    assert filtered == alone.model_copy(update={"label_filter": True})
    student = load_config("cpu", f"unet-{rival}", {"student": {}})
    assert student.stages == ["stage2", "self_training", "student"]


def test_overrides_reach_the_configuration() -> None:
    config = load_config("cpu", "unet", parse_overrides(["stage2.steps=7", "split.masks=0.1"]))
    assert config.stage2.steps == 7
    assert config.split.masks == 0.1
    assert config.stage1.steps == load_config("cpu", "unet").stage1.steps


def test_the_length_of_stage1_follows_the_labelled_images() -> None:
    """Eight passes, from 300 steps to 3000; a number of steps is taken as it is."""
    stage1 = load_config("cpu").stage1
    assert [stage1.for_images(n, 16).steps for n in (30, 600, 1730, 10**6)] == [300, 300, 865, 3000]
    assert (
        stage1.model_copy(update={"accumulate_grad_batches": 2}).for_images(1730, 16).steps == 433
    )
    assert stage1.model_copy(update={"epochs": 16.0}).for_images(600, 16).steps == 600
    assert stage1.model_copy(update={"steps": 7}).for_images(10**6, 16).steps == 7


# Refusals


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("stage3.steps=5", "stage3"),
        ("stage1.step=5", "stage1.step"),
        ("model.skips.evidnce=false", "model.skips.evidnce"),
        ("stage1=5", "stage1"),
        ("seed=-1", "seed"),
        ("seed=1.5", "seed"),
        ("data.image_size=31", "data.image_size"),
        ("data.batch_size=0", "data.batch_size"),
        ("data.lesion_free_fraction=1", "data.lesion_free_fraction"),
        ("split.masks=-3", "split.masks"),
        ("split.masks=.nan", "split.masks"),
        ("split.validation_masks=-1", "split.validation_masks"),
        ("augment.brightness=2", "augment.brightness"),
        ("stage2.learning_rate=0", "stage2.learning_rate"),
        ("stage2.checkpoint=newest", "stage2.checkpoint"),
        ("stage2.ema_decay=1", "stage2.ema_decay"),
        ("model.decoder_channels=[8, 8]", "model.decoder_channels"),
        ("model.architecture=vnet", "model.architecture"),
        ("model.coarse_learning_rate_scale=2", "model.coarse_learning_rate_scale"),
        ("device.precision=8", "device.precision"),
        ("device.devices=0", "device.devices"),
        ("device.devices=-2", "device.devices"),
        ("method=unet", "--method unet"),
    ],
)
def test_unknown_keys_and_values_out_of_range_are_named(change: str, named: str) -> None:
    with pytest.raises(UsageError, match=named.replace(".", r"\.")) as caught:
        load_config("cpu", "sks-evidence", parse_overrides([change]))
    assert "\n" not in str(caught.value)


def test_many_problems_are_counted() -> None:
    wrong = parse_overrides([f"stage1.wrong{number}=1" for number in range(8)])
    with pytest.raises(UsageError, match="and 3 more"):
        load_config("cpu", "unet", wrong)


def test_compensation_needs_fusion() -> None:
    off = {"model": {"skips": {"feature_share": False}}}
    with pytest.raises(UsageError, match="switch feature_share on"):
        load_config("cpu", "sks", off)
    both_off = merge(off, {"model": {"skips": {"resolution_compensation": False}}})
    assert load_config("cpu", "sks", both_off).model.skips.long


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("sks-selftrained", "self_training.label_filter=false", "has a part that learns them"),
        ("unet-stage1-multitask-selftrained", "self_training.label_filter=false", "label_head"),
        ("unet-selftrained", "self_training.largest_component=true", "set hard_pseudo_labels"),
        (
            "sks-selftrained",
            "{model: {skips: {fuse_in_encoder: true}}, self_training: {feature_dropout: 0.5}}",
            "set it to 0",
        ),
    ],
)
def test_options_of_self_training_that_do_not_go_together(
    method: str, change: str, message: str
) -> None:
    overrides = yaml.safe_load(change) if change[0] == "{" else parse_overrides([change])
    with pytest.raises(UsageError, match=message):
        load_config("cpu", method, overrides)


def test_unknown_preset_and_method_name_the_known_ones() -> None:
    with pytest.raises(UsageError, match="cpu, cpu-thorough, paper"):
        load_config("gpu")
    with pytest.raises(UsageError, match=", ".join(method_names())):
        load_config("cpu", "resnet")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "not found"),
        (b"stage1: [", "not valid YAML"),
        (b"\xff\xfe", "cannot be read .*expected the config.yaml of a run, in UTF-8"),
        (b"stage9: {}", "stage9"),
        (b"", "config.yaml"),
        (b"- a\n- b", "config.yaml"),
    ],
)
def test_a_damaged_configuration_of_a_run(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DxsegError, match=expected):
        read_config(path)


@given(st.integers(1, 5000), st.integers(1, 500))
def test_a_stage_has_at_least_its_steps_in_whole_epochs(steps: int, per_epoch: int) -> None:
    stage = StageConfig(steps=steps, steps_per_epoch=per_epoch)
    assert stage.max_epochs * stage.epoch_steps == stage.total_steps >= steps
    assert stage.total_steps - steps < stage.epoch_steps


def test_keys_of_earlier_versions_are_accepted_with_a_note(
    capsys: pytest.CaptureFixture[str],
) -> None:
    changed = parse_overrides(["selftraining.teacher_decay=0.5", "stage1.steps=2"])
    assert changed == {"self_training": {"ema_decay": 0.5}, "stage1": {"steps": 2}}
    assert capsys.readouterr().err == (
        "note: --set selftraining.teacher_decay: this key is now self_training.ema_decay\n"
    )


def test_every_renamed_key_has_become_one_that_there_is() -> None:
    tree = load_config("cpu", "sks-selftrained").model_dump()
    keys = set(tree) | {key for part in tree.values() if isinstance(part, dict) for key in part}
    assert set(RENAMED.values()) <= keys
    assert not set(RENAMED) & keys


def test_all_devices_as_earlier_versions_recorded_them() -> None:
    assert load_config("cpu", "unet", {"device": {"devices": -1}}).device.devices == "auto"
