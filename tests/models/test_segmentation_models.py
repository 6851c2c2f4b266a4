"""What every segmenter promises, asked of every method and of each kind of backbone."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dxseg.config.presets import load_config, method_names
from dxseg.config.schema import ModelConfig
from dxseg.data.preprocessing import Preprocessing
from dxseg.inference.model_folder import ModelInfo, load_model_folder, save_model_folder
from dxseg.models.coarse_branch import EVIDENCE_STRIDE
from dxseg.models.factory import Task, build_coarse_branch, build_model
from dxseg.models.heads import LESION_PRIOR
from dxseg.models.segmentation_model import STRIDE, SegmentationModel
from dxseg.models.sks import SKS

SMALL: dict[str, Any] = {
    "backbone": "mobilenetv3_small_050",
    "decoder_channels": [16, 16, 8, 8, 8],
}


def model_config(method: str, **changes: Any) -> ModelConfig:
    return load_config("cpu", method, {"model": SMALL | changes}).model


def build(config: ModelConfig, task: Task, seed: int = 0) -> SegmentationModel:
    torch.manual_seed(seed)
    return build_model(config, task, pretrained=False)


def lively(network: nn.Module) -> nn.Module:
    """Normalisation statistics and scales as after some training: random, but sane."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


@lru_cache(maxsize=1)
def evaluated(config: ModelConfig, task: Task) -> SegmentationModel:
    """A segmenter that several tests look at and none changes."""
    return lively(build(config, task)).eval()  # type: ignore[return-value]


def images(count: int, channels: int, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(
        count, channels, height, width, generator=torch.Generator().manual_seed(seed)
    )


class SegmenterContract:
    """The tests that every architecture inherits; ``config`` is what a subclass supplies."""

    task = Task(channels=1, mask_classes=1, labels=3)

    @pytest.fixture
    def config(self) -> ModelConfig:
        raise NotImplementedError

    @pytest.fixture
    def segmenter(self, config: ModelConfig) -> SegmentationModel:
        return evaluated(config, self.task)

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

    def test_an_unknown_label_changes_nothing(self, segmenter: SegmentationModel) -> None:
        x = images(2, 1)
        with torch.no_grad():
            assert torch.equal(
                segmenter(x, torch.tensor([-1, -1])).mask_logits, segmenter(x).mask_logits
            )

    def test_a_known_label_moves_the_mask_where_evidence_prompts(
        self, config: ModelConfig, segmenter: SegmentationModel
    ) -> None:
        x = images(3, 1)
        prompted = config.architecture == "sks" and config.skips.evidence
        with torch.no_grad():
            own, told = segmenter(x), segmenter(x, torch.tensor([0, -1, 2]))
        moved = (told.mask_logits != own.mask_logits).flatten(1).any(dim=1)
        assert moved.tolist() == [prompted, False, prompted]
        if own.label_logits is not None:
            assert torch.equal(told.label_logits, own.label_logits), "its own opinion stays"

    def test_images_of_a_batch_do_not_touch_each_other(self, segmenter: SegmentationModel) -> None:
        x = images(3, 1)
        with torch.no_grad():
            together = segmenter(x).mask_logits
            alone = torch.cat([segmenter(one[None]).mask_logits for one in x])
        assert torch.allclose(together, alone, atol=1e-4)

    def test_gradients_reach_every_trainable_parameter(self, config: ModelConfig) -> None:
        segmenter = build(config, self.task).to(memory_format=torch.channels_last).train()
        outputs = segmenter(images(4, 1))
        loss = outputs.mask_logits.square().mean()
        if config.label_head:
            loss = loss + outputs.label_logits.square().mean()  # type: ignore[union-attr]
        loss.backward()
        trainable = {n: p for n, p in segmenter.named_parameters() if p.requires_grad}
        assert [name for name, p in trainable.items() if p.grad is None] == []
        # MA-Net's channel attention squeezes narrow levels into one ReLU, which may be off.
        dead = [n for n, p in trainable.items() if ".SE_" not in n and not p.grad.any()]  # type: ignore[union-attr]
        assert dead == []

    def test_state_dict_round_trip_gives_the_same_outputs(
        self, config: ModelConfig, segmenter: SegmentationModel
    ) -> None:
        twin = build(config, self.task, seed=1).eval()
        x = images(2, 1)
        with torch.no_grad():
            assert not torch.equal(twin(x).mask_logits, segmenter(x).mask_logits)
            twin.load_state_dict(segmenter.state_dict(), strict=True)
            assert torch.equal(twin(x).mask_logits, segmenter(x).mask_logits)

    def test_a_bundle_gives_the_same_network_back(
        self, config: ModelConfig, segmenter: SegmentationModel, tmp_path: Path
    ) -> None:
        preprocessing = Preprocessing(image_size=64, channels=1, mean=(0.5,), std=(0.25,))
        info = ModelInfo(
            model=config, preprocessing=preprocessing, labels=["a", "b", "c"], mask_classes=["m"]
        )
        save_model_folder(tmp_path, segmenter, info)
        again, told = load_model_folder(tmp_path)
        assert told.model == config
        x = images(2, 1)
        with torch.no_grad():
            assert torch.equal(again(x).mask_logits, segmenter(x).mask_logits)

    @pytest.mark.parametrize(("channels", "mask_classes"), [(1, 3), (3, 1), (5, 2)])
    def test_any_channels_and_mask_classes(
        self, config: ModelConfig, channels: int, mask_classes: int
    ) -> None:
        segmenter = build(config, Task(channels, mask_classes, labels=2)).eval()
        with torch.no_grad():
            logits = segmenter(images(1, channels, 32, 32)).mask_logits
        assert logits.shape == (1, mask_classes, 32, 32)

    def test_lesions_are_seldom_before_anything_is_learnt(self, config: ModelConfig) -> None:
        segmenter = build(config, Task(3, 2, labels=2)).eval()
        with torch.no_grad():
            before = segmenter(images(2, 3, 32, 32)).mask_logits.sigmoid()
        assert before.mean() < 4 * LESION_PRIOR


@pytest.mark.parametrize("method", method_names())
class TestArms(SegmenterContract):
    """Every named method, on a small backbone with five levels."""

    @pytest.fixture
    def config(self, method: str) -> ModelConfig:  # type: ignore[override]
        return model_config(method)


class TestSharedEncoders(SegmenterContract):
    """The dual branch with three of five levels in common."""

    @pytest.fixture
    def config(self) -> ModelConfig:
        return model_config("sks-evidence", shared_encoder_levels=3)


@pytest.mark.parametrize("method", ["sks-evidence", "unet"])
def test_backbone_of_four_levels_and_channels_last(method: str) -> None:
    """Swin-T v2 has nothing at stride 2 and answers channels last."""
    config = model_config(method, backbone="swinv2_tiny_window8_256")
    segmenter = build(config, Task(1, 1, 3)).train()
    segmenter(images(2, 1, 64, 40)).mask_logits.mean().backward()
    assert all(p.grad is not None for p in segmenter.parameters() if p.requires_grad)


@pytest.mark.parametrize("method", ["sks-evidence", "unet"])
def test_packaged_backbone(method: str) -> None:
    """The ``cpu`` preset itself, weights included."""
    config = load_config("cpu", method).model
    segmenter = build_model(config, Task(3, 1, 3), pretrained=True).eval()
    with torch.no_grad():
        assert segmenter(images(1, 3)).mask_logits.shape == (1, 1, 64, 64)


class TestDualBranch:
    """What only the dual-U segmenter promises."""

    task = Task(channels=1, mask_classes=1, labels=3)

    def built(self, **changes: Any) -> SKS:
        segmenter = build(model_config("sks-evidence", **changes), self.task)
        assert isinstance(segmenter, SKS)
        return segmenter

    def test_a_frozen_coarse_branch_learns_nothing(self) -> None:
        segmenter = self.built().train()
        before = {name: tensor.clone() for name, tensor in segmenter.coarse.state_dict().items()}
        trainable = [p for p in segmenter.parameters() if p.requires_grad]
        optimiser = torch.optim.SGD(trainable, lr=0.1)
        segmenter(images(4, 1)).mask_logits.square().mean().backward()
        optimiser.step()
        assert all(parameter.grad is None for parameter in segmenter.coarse.parameters())
        after = segmenter.coarse.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)  # statistics too

    def test_the_fine_branch_moves_its_statistics(self) -> None:
        segmenter = self.built().train()
        before = {n: t.clone() for n, t in segmenter.encoder.named_buffers() if "mean" in n}
        segmenter(images(4, 1))
        after = dict(segmenter.encoder.named_buffers())
        assert all(not torch.equal(before[name], after[name]) for name in before)

    def test_frozen_stays_in_evaluation_mode_through_train_and_eval(self) -> None:
        outer = nn.Sequential(self.built())
        for mode in (True, False, True):
            outer.train(mode)
            assert not any(module.training for module in outer[0].coarse.modules())
            assert outer[0].encoder.training is mode

    def test_a_fine_tuned_coarse_branch_learns(self) -> None:
        segmenter = self.built(coarse_learning_rate_scale=0.1).train()
        assert segmenter.coarse.training
        segmenter(images(4, 1)).mask_logits.square().mean().backward()
        silent = {n for n, p in segmenter.coarse.named_parameters() if p.grad is None}
        # Also the image-level heads: they say how much evidence counts.
        assert silent == set()

    def test_evidence_never_exceeds_what_the_image_is_thought_to_have(self) -> None:
        with torch.no_grad():
            out = self.built().eval()(images(2, 1))
        assert out.evidence is not None
        assert out.label_logits is not None
        present = out.label_logits.softmax(dim=1)[:, :, None, None]
        assert tuple(out.evidence.shape) == (2, 3, 16, 16)
        assert ((out.evidence >= 0) & (out.evidence <= present)).all()

    def test_evidence_of_several_labels_is_one_probability_each(self) -> None:
        config = model_config("sks-evidence")
        torch.manual_seed(0)
        segmenter = build_model(config, Task(1, 1, 3, multi_label=True), pretrained=False).eval()
        with torch.no_grad():
            out = segmenter(images(2, 1))
        present = out.label_logits.sigmoid()[:, :, None, None]  # type: ignore[union-attr]
        assert (out.evidence <= present).all()
        # Independent labels: together they may exceed what one label could have.
        assert not torch.allclose(present.sum(dim=1), torch.ones(2, 1, 1), atol=1e-2)

    def test_weights_are_copied_from_stage_one_as_the_configuration_says(self) -> None:
        torch.manual_seed(5)
        stage1 = build_coarse_branch(model_config("sks-evidence"), self.task, pretrained=False)

        def same(a: nn.Module, b: nn.Module) -> bool:
            mine, theirs = a.state_dict(), b.state_dict()
            return mine.keys() == theirs.keys() and all(
                torch.equal(mine[name], theirs[name]) for name in mine
            )

        def built(method: str) -> Any:
            torch.manual_seed(6)
            return build_model(model_config(method), self.task, stage1=stage1, pretrained=False)

        sks = built("sks-evidence")
        assert same(sks.coarse, stage1)
        assert same(sks.encoder, stage1.encoder)
        sks.encoder.body.conv_stem.weight.data.zero_()
        assert stage1.encoder.body.conv_stem.weight.any()  # a copy, not the same memory
        control = built("sks-no-labels")
        assert not same(control.coarse, stage1)
        assert not same(control.encoder, stage1.encoder)
        assert same(built("unet-stage1").encoder.model, stage1.encoder.body)
        assert not same(built("unet").encoder.model, stage1.encoder.body)
