"""The contract of segmentation models, checked on every architecture."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Callable
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from dxseg.models import (
    SKS,
    EvidencePrompt,
    LongSkip,
    SegmentationModel,
    SegmenterOutput,
    create_model,
)
from dxseg.models.coarse_branch import EVIDENCE_STRIDE
from dxseg.models.heads import LESION_PRIOR
from dxseg.models.segmentation_model import STRIDE
from plain_backbone import plain_convolutions, small_swin

Build = Callable[..., SegmentationModel]

BOTH = (LongSkip, EvidencePrompt)
RANDOM: dict[str, Any] = {"encoder_weights": None, "coarse_weights": None}
FEW_LAYERS = plain_convolutions.__name__
MANY_LAYERS = "mobilenetv3_small_050"

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "sks": ("sks", RANDOM),
    "sks, evidence prompt": ("sks", RANDOM | {"prompts": BOTH}),
    "sks, shared levels": ("sks", RANDOM | {"prompts": BOTH, "shared_encoder_levels": 3}),
    "sks, fusion in the encoder": ("sks", RANDOM | {"fuse_in_encoder": True}),
    "sks, coarse branch trained": ("sks", RANDOM | {"freeze_coarse": False}),
    "sks, no skips": ("sks", RANDOM | {"fusion": None, "prompts": ()}),
    "unet": ("unet", {"labels": 0, "encoder_weights": None}),
    "unet, label head": ("unet", {"encoder_weights": None}),
    "unetplusplus": ("unetplusplus", {"labels": 0, "encoder_weights": None}),
    "manet": ("manet", {"labels": 0, "encoder_weights": None}),
}
"""Architecture and options of everything that can be built."""

IN_OTHERS = ("sks", "sks, coarse branch trained", "unet")
"""Networks that are not traced: in evaluation mode they run only code that the others run."""

TRACED = [
    pytest.param(
        name, marks=() if name in ("sks, evidence prompt", "unet, label head") else pytest.mark.slow
    )
    for name in NETWORKS
    if name not in IN_OTHERS
]

GOLDEN: dict[str, tuple[float, ...]] = {
    "sks": (-1.23210, -0.50877, -1.54408, 1.32483),
    "sks, evidence prompt": (0.76604, 0.50440, -2.89971, 2.70687),
    "sks, shared levels": (-3.37444, 1.71590, -1.25117, 1.86819),
    "sks, fusion in the encoder": (-1.08398, 1.47172, -1.28582, 1.39659),
    "sks, coarse branch trained": (-1.23210, -0.50877, -1.54408, 1.32483),
    "sks, no skips": (0.73935, -0.64980, 0.39824, 1.45746),
    "unet": (0.54133, 2.15052, 1.34892, 1.69346),
    "unet, label head": (0.54133, 2.15052, 1.34892, 1.69346),
    "unetplusplus": (2.76246, 4.11294, 2.21776, 2.33403),
    "manet": (-1.77277, -0.35253, 0.28639, 1.38530),
}
"""Mask logits at three places, and their standard deviation, with weights in closed form."""


def builder(name: str, backbone: str = FEW_LAYERS) -> Build:
    architecture, options = NETWORKS[name]
    small: dict[str, Any] = {"decoder_channels": (16, 16, 8, 8, 8), "in_channels": 1, "labels": 3}
    return partial(create_model, architecture, backbone, **(small | options))


def build_seeded(build: Build, seed: int = 0, **changes: Any) -> SegmentationModel:
    torch.manual_seed(seed)
    return build(**changes)


def lively(network: nn.Module) -> nn.Module:
    """Normalization statistics and scales as after some training: random, but sane."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


@cache
def evaluated(name: str, backbone: str = FEW_LAYERS) -> SegmentationModel:
    """A network in evaluation mode that tests share and none changes."""
    return lively(build_seeded(builder(name, backbone))).eval()  # type: ignore[return-value]


def images(count: int, channels: int, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(
        count, channels, height, width, generator=torch.Generator().manual_seed(seed)
    )


def tensors(output: SegmenterOutput) -> dict[str, Tensor]:
    values = {field.name: getattr(output, field.name) for field in fields(output)}
    return {name: value for name, value in values.items() if value is not None}


def has_evidence_prompt(network: SegmentationModel) -> bool:
    return isinstance(network, SKS) and any(isinstance(p, EvidencePrompt) for p in network.prompts)


def in_closed_form(network: nn.Module) -> nn.Module:
    """Weights that no random generator draws: a sine over the entries of each tensor."""
    with torch.no_grad():
        for place, (name, tensor) in enumerate(network.state_dict().items()):
            if not tensor.is_floating_point():
                continue
            wave = torch.arange(tensor.numel(), dtype=torch.float64).mul(1.7).add(place).sin()
            wave = wave.reshape(tensor.shape)
            if tensor.ndim > 1:
                wave *= math.sqrt(3 / tensor[0].numel())
            elif name.endswith(("weight", "running_var")):  # scales and variances are positive
                wave = 1 + wave / 2
            tensor.copy_(wave)
    return network


@pytest.mark.parametrize("name", NETWORKS)
class TestContract:
    """What every architecture promises."""

    @pytest.fixture
    def build(self, name: str) -> Build:
        return builder(name)

    @pytest.fixture
    def segmenter(self, name: str) -> SegmentationModel:
        return evaluated(name)

    @pytest.mark.parametrize("size", [(64, 64), (33, 70), (32, 95), (5, 7)])
    def test_logits_have_the_size_of_the_input(
        self, segmenter: SegmentationModel, size: tuple[int, int]
    ) -> None:
        with torch.no_grad():
            out = segmenter(images(2, 1, *size))
        assert out.mask_logits.shape == (2, 1, *size)
        assert out.mask_logits.isfinite().all()
        if out.evidence is not None:
            assert out.evidence.shape[:2] == (2, 3)
            rows, columns = out.evidence.shape[-2:]
            wanted = (-(-size[0] // EVIDENCE_STRIDE), -(-size[1] // EVIDENCE_STRIDE))
            assert (rows, columns) == wanted
        assert out.features is not None
        assert out.features.shape[-2:] == tuple(-(-side // STRIDE) for side in size)
        assert out.features.flatten(1).std(dim=0).max() > 0, "two images look different"

    def test_label_logits_are_there_where_labels_are_predicted(
        self, name: str, segmenter: SegmentationModel
    ) -> None:
        with torch.no_grad():
            out = segmenter(images(2, 1))
        assert (out.evidence is not None) == name.startswith("sks")
        if name.startswith("sks") or "label head" in name:
            assert out.label_logits is not None
            assert out.label_logits.shape == (2, 3)
        else:
            assert out.label_logits is None

    def test_odd_sizes_are_padded_and_cropped(self, segmenter: SegmentationModel) -> None:
        x = images(1, 1, 40, 50)
        padded = torch.zeros(1, 1, 64, 64)
        padded[..., :40, :50] = x
        with torch.no_grad():
            whole, part = segmenter(padded), segmenter(x)
        assert torch.equal(part.mask_logits, whole.mask_logits[..., :40, :50])
        assert torch.equal(part.features, whole.features)
        if part.evidence is not None:
            rows, columns = part.evidence.shape[-2:]
            assert torch.equal(part.evidence, whole.evidence[..., :rows, :columns])
            assert torch.equal(part.label_logits, whole.label_logits)

    def test_outputs_have_the_dtype_of_weights_and_images(self, build: Build) -> None:
        network = lively(build_seeded(build)).eval()
        x = images(2, 1)
        with torch.no_grad():
            single, double = tensors(network(x)), tensors(network.double()(x.double()))
        assert {value.dtype for value in single.values()} == {torch.float32}
        assert {value.dtype for value in double.values()} == {torch.float64}
        for name, value in single.items():
            assert torch.allclose(value.double(), double[name], atol=1e-3), name

    def test_channels_last_images_give_the_same_output(self, segmenter: SegmentationModel) -> None:
        x = images(2, 1)
        with torch.no_grad():
            one = segmenter(x)
            other = segmenter(x.contiguous(memory_format=torch.channels_last))
        assert torch.allclose(one.mask_logits, other.mask_logits, atol=1e-4)

    def test_an_unknown_label_changes_nothing(self, segmenter: SegmentationModel) -> None:
        x = images(2, 1)
        with torch.no_grad():
            assert torch.equal(
                segmenter(x, torch.tensor([-1, -1])).mask_logits, segmenter(x).mask_logits
            )

    def test_a_label_prompt_moves_the_mask_where_evidence_prompts(
        self, segmenter: SegmentationModel
    ) -> None:
        x = images(3, 1)
        prompted = has_evidence_prompt(segmenter)
        with torch.no_grad():
            own, told = segmenter(x), segmenter(x, torch.tensor([0, -1, 2]))
        moved = (told.mask_logits != own.mask_logits).flatten(1).any(dim=1)
        assert moved.tolist() == [prompted, False, prompted]
        if own.label_logits is not None:
            assert torch.equal(told.label_logits, own.label_logits), "from the image alone"

    def test_images_of_a_batch_do_not_touch_each_other(self, segmenter: SegmentationModel) -> None:
        x = images(3, 1)
        with torch.no_grad():
            together = segmenter(x).mask_logits
            alone = torch.cat([segmenter(one[None]).mask_logits for one in x])
        assert torch.allclose(together, alone, atol=1e-4)

    def test_gradients_reach_every_trainable_parameter(self, build: Build) -> None:
        segmenter = build_seeded(build).to(memory_format=torch.channels_last).train()
        outputs = segmenter(images(4, 1))
        loss = outputs.mask_logits.square().mean()
        if outputs.label_logits is not None and outputs.label_logits.requires_grad:
            loss = loss + outputs.label_logits.square().mean()
        loss.backward()
        trainable = {n: p for n, p in segmenter.named_parameters() if p.requires_grad}
        assert [name for name, p in trainable.items() if p.grad is None] == []
        # MA-Net's channel attention squeezes narrow levels into one ReLU, which may be off.
        dead = [n for n, p in trainable.items() if ".SE_" not in n and not p.grad.any()]  # type: ignore[union-attr]
        assert dead == []

    def test_what_is_frozen_keeps_weights_and_statistics(self, build: Build) -> None:
        segmenter = build_seeded(build).train()
        before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
        frozen = {name for name, p in segmenter.named_parameters() if not p.requires_grad}
        weights = [p for p in segmenter.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(weights, lr=0.1)
        segmenter(images(4, 1)).mask_logits.square().mean().backward()
        optimizer.step()
        after = segmenter.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert not changed & frozen
        if isinstance(segmenter, SKS) and segmenter.coarse_frozen:
            assert not [name for name in changed if name.startswith("coarse.")]
        assert [name for name in changed if "running_mean" in name], "the rest follows the images"

    def test_state_dict_round_trip_gives_the_same_outputs(
        self, build: Build, segmenter: SegmentationModel, tmp_path: Path
    ) -> None:
        twin = build_seeded(build, seed=1).eval()
        x = images(2, 1)
        torch.save(segmenter.state_dict(), tmp_path / "weights.pt")
        with torch.no_grad():
            assert not torch.equal(twin(x).mask_logits, segmenter(x).mask_logits)
            twin.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
            assert torch.equal(twin(x).mask_logits, segmenter(x).mask_logits)

    @pytest.mark.parametrize(("channels", "mask_classes"), [(1, 3), (3, 1), (5, 2)])
    def test_any_channels_and_mask_classes(
        self, build: Build, channels: int, mask_classes: int
    ) -> None:
        segmenter = build_seeded(build, in_channels=channels, classes=mask_classes).eval()
        with torch.no_grad():
            logits = segmenter(images(1, channels, 32, 32)).mask_logits
        assert logits.shape == (1, mask_classes, 32, 32)

    def test_lesions_are_seldom_before_anything_is_learnt(self, build: Build) -> None:
        segmenter = build_seeded(build, in_channels=3, classes=2).eval()
        with torch.no_grad():
            before = segmenter(images(2, 3, 32, 32)).mask_logits.sigmoid()
        assert before.mean() < 4 * LESION_PRIOR

    def test_outputs_of_weights_in_closed_form_stay_what_they_were(self, name: str) -> None:
        network = in_closed_form(build_seeded(builder(name, MANY_LAYERS))).eval()
        x = torch.arange(64 * 64).mul(0.37).sin().reshape(1, 1, 64, 64)
        with torch.no_grad():
            logits = network(x).mask_logits[0, 0]
        found = (logits[0, 0], logits[20, 30], logits[63, 40], logits.std())
        assert tuple(map(float, found)) == pytest.approx(GOLDEN[name], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", TRACED)
def test_an_exported_program_gives_the_same_typed_output(name: str) -> None:
    """`torch.export` with a free batch size, through a file."""
    segmenter = evaluated(name)
    example = (images(2, 1), torch.tensor([0, -1]))
    batch = {0: Dim("batch")}
    free = (batch, batch if isinstance(segmenter, SKS) else None)
    arguments = example if isinstance(segmenter, SKS) else (example[0], None)
    saved = io.BytesIO()
    torch.export.save(export(segmenter, arguments, dynamic_shapes=free), saved)
    program = torch.export.load(saved).module()
    other = (images(3, 1, seed=4), *([torch.tensor([1, 2, -1])] * isinstance(segmenter, SKS)))
    arguments = other if isinstance(segmenter, SKS) else (*other, None)
    with torch.no_grad():
        expected, found = segmenter(*arguments), program(*arguments)
    assert isinstance(found, SegmenterOutput)
    assert tensors(found).keys() == tensors(expected).keys()
    for field, value in tensors(expected).items():
        torch.testing.assert_close(tensors(found)[field], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", TRACED)
def test_compiled_without_graph_breaks_it_gives_the_same_output(name: str) -> None:
    """`torch.compile` traces the whole network; code is generated in another test."""
    segmenter = evaluated(name)
    torch.compiler.reset()
    compiled = torch.compile(segmenter, fullgraph=True, backend="eager")
    x = images(2, 1, 40, 64)
    with torch.no_grad():
        expected, found = segmenter(x), compiled(x)
    assert isinstance(found, SegmenterOutput)
    for field, value in tensors(expected).items():
        torch.testing.assert_close(tensors(found)[field], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_generated_code_computes_the_same() -> None:
    segmenter = evaluated("sks, evidence prompt")
    torch.compiler.reset()
    compiled = torch.compile(segmenter)
    x = images(2, 1)
    with torch.no_grad():
        expected, found = segmenter(x), compiled(x)
    for name, value in tensors(expected).items():
        torch.testing.assert_close(tensors(found)[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("architecture", ["sks", "unet"])
def test_backbone_of_four_levels_and_channels_last(architecture: str) -> None:
    """Swin v2 has nothing at stride 2 and computes channels last."""
    name = "sks, evidence prompt" if architecture == "sks" else architecture
    _, options = NETWORKS[name]
    segmenter = create_model(
        architecture,
        small_swin.__name__,
        **({"labels": 3} | options),
        in_channels=1,
        decoder_channels=(16, 16, 8, 8, 8),
    ).train()
    segmenter(images(2, 1, 64, 40)).mask_logits.mean().backward()
    assert all(p.grad is not None for p in segmenter.parameters() if p.requires_grad)
