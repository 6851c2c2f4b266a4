from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from dxseg.config.stages import StageConfig
from dxseg.errors import DxsegError
from dxseg.inference.components import ComponentFilter
from dxseg.inference.model_folder import load_model_folder
from dxseg.inference.predictor import Predictor
from dxseg.inference.sliding_window import pad_to_window, predict_windows
from dxseg.models.whole_view import WholeView
from dxseg.training.modules.segmentation import SegmentationModule
from onnx_models import make_model_folder

LARGE = np.random.default_rng(0).integers(0, 256, (100, 140, 1), dtype=np.uint8)
"""Six windows of 64 px."""


def windowed(make_predictor, **options) -> Predictor:
    return make_predictor(sliding_window=True, **options)


def dots(height: int, width: int) -> np.ndarray:
    """Dark, with bright dots of 2 px that a network of 32 px cannot see in the whole image."""
    image = np.full((height, width, 1), 10, np.uint8)
    image[5:7, 5:7] = image[-7:-5, -6:-4] = 250
    return image


def test_windows_find_what_the_smaller_image_has_lost(make_predictor):
    for size in ((200, 150), (33, 32), (20, 400)):
        image = dots(*size)
        [prediction] = windowed(make_predictor).predict([image])
        assert (prediction.mask == (image[:, :, 0] > 127)).all()
    assert not make_predictor().predict([dots(200, 150)])[0].mask.any()


def test_an_image_of_the_network_s_size_is_not_cut(make_predictor):
    image = dots(32, 20)
    [one] = windowed(make_predictor).predict([image])
    assert make_predictor.networks[-1].batches == [(1, 1, 32, 32)]
    [other] = make_predictor().predict([image])
    assert (one.probabilities == other.probabilities).all()


def test_labels_and_evidence_come_from_the_whole_image(make_predictor):
    image = dots(200, 150)
    [one] = windowed(make_predictor).predict([image])
    [other] = make_predictor().predict([image])
    assert one.label_probabilities == other.label_probabilities
    assert (one.evidence == other.evidence).all()


def test_windows_go_through_the_network_in_batches(make_predictor):
    windowed(make_predictor).predict([dots(200, 150)])
    batches = make_predictor.networks[-1].batches
    assert {shape[1:] for shape in batches} == {(1, 32, 32)}
    assert max(shape[0] for shape in batches) == 4


def test_a_constant_answer_stays_constant_where_windows_overlap():
    found = predict_windows(torch.rand(1, 1, 70, 90), 32, lambda x, _: x * 0 + 3, 2)
    torch.testing.assert_close(found, torch.full((1, 1, 70, 90), 3.0))


def test_padding_is_below_and_beside():
    padded = pad_to_window(np.ones((3, 50, 2), np.uint16), 32)
    assert padded.shape == (32, 50, 2)
    assert padded[:3].all()
    assert not padded[3:].any()


def test_small_components_are_those_of_the_windows(make_predictor):
    """Areas are of the network's input: a dot of 2 x 2 px has 4 where nothing is resized."""
    image = dots(200, 150)
    [kept] = windowed(make_predictor, components=ComponentFilter(min_area=3)).predict([image])
    assert (kept.mask == (image[:, :, 0] > 127)).all()
    [removed] = windowed(make_predictor, components=ComponentFilter(min_area=5)).predict([image])
    assert not removed.mask.any()


def test_windows_are_cut_at_the_spacing_of_the_network(make_predictor):
    """Dots of 2 px of 1 mm are 4 px at 0.5 mm; without a spacing the image is cut as it is."""
    image = dots(40, 60)
    predictor = windowed(make_predictor, spacing=(0.5, 0.5))
    [prediction] = predictor.predict([image], spacings=[(1.0, 1.0)])
    assert (prediction.mask == (image[:, :, 0] > 127)).all()
    at_half, _ = predictor._pipeline.preprocess(image, (), (1.0, 1.0)).large.shape[:2]  # type: ignore[union-attr]
    assert at_half == 80
    assert predictor._pipeline.preprocess(image).large.shape[:2] == (40, 60)  # type: ignore[union-attr]


def test_the_model_says_whether_there_are_windows(tmp_path):
    folder = make_model_folder(tmp_path / "model", "unet", sliding_window=True)
    [cut] = Predictor.from_folder(folder).predict([LARGE])
    [same] = Predictor.from_folder(folder, sliding_window=True).predict([LARGE])
    [reduced] = Predictor.from_folder(folder, sliding_window=False).predict([LARGE])
    assert (cut.probabilities == same.probabilities).all()
    assert (cut.probabilities != reduced.probabilities).any()


def test_a_model_folder_from_before_there_were_windows_is_read(tmp_path):
    folder = make_model_folder(tmp_path / "model", "unet")
    text = json.loads((folder / "model.json").read_text())
    del text["sliding_window"]
    (folder / "model.json").write_text(json.dumps(text))
    assert not Predictor.from_folder(folder).info.sliding_window


@pytest.mark.parametrize("reduction", [1, 2])
def test_a_single_window_of_the_whole_image_is_the_image(tmp_path, reduction):
    folder = make_model_folder(tmp_path / "model", "sks", coarse_reduction=reduction)
    pipeline = Predictor.from_folder(folder)._pipeline
    item = pipeline.preprocess(LARGE[:64, :64])
    [whole] = pipeline.forward([item])
    [window] = pipeline.forward([replace(item, large=item.square)])
    torch.testing.assert_close(window.masks, whole.masks)


@pytest.mark.parametrize("reduction", [1, 2])
@torch.inference_mode()
def test_windows_see_what_training_patches_see_of_the_whole_image(tmp_path, monkeypatch, reduction):
    folder = make_model_folder(
        tmp_path / "model", "sks", coarse_reduction=reduction, sliding_window=True
    )
    network, info = load_model_folder(folder)
    predictor, seen = Predictor(network, info), []
    forward = network._forward_padded

    def spy(x, prompt, whole):
        seen.append((x, whole))
        return forward(x, prompt, whole)

    with monkeypatch.context() as patched:
        patched.setattr(network, "_forward_padded", spy)
        predictor.predict([LARGE])
    windows, view = seen[-1]
    assert view.corners.tolist() == [[x, y] for y in (0, 36) for x in (0, 48, 76)]
    pixels = predictor._pipeline.normalize([LARGE])
    module = SegmentationModule(network, info.model, StageConfig())
    found = network(windows, None, view).mask_logits
    for window, corner, masks in zip(windows, view.corners, found, strict=True):
        x, y = corner.tolist()
        patch = pixels[..., y : y + 64, x : x + 64]
        assert torch.equal(window, patch[0])
        batch = {"image": patch, "whole": pixels, "corner": corner[None]}
        learned = network(patch, None, module.whole_view(batch)).mask_logits[0]  # type: ignore[arg-type]
        torch.testing.assert_close(masks, learned, atol=1e-4, rtol=1e-4)


def test_label_prompts_reach_the_coarse_branch_of_every_window(tmp_path):
    folder = make_model_folder(tmp_path / "model", "sks-evidence", sliding_window=True)
    predict = partial(Predictor.from_folder(folder).predict, [LARGE])
    [plain], [prompted] = predict(), predict(["benign"])
    assert np.abs(plain.network_probabilities - prompted.network_probabilities).max() > 1e-4


def test_an_ensemble_shows_each_model_the_whole_image(tmp_path):
    folders = [
        make_model_folder(tmp_path / str(reduction), "sks", coarse_reduction=reduction)
        for reduction in (1, 2)
    ]
    members = [Predictor.from_folder(folder) for folder in folders]
    together = Predictor.from_folder(folders)

    def probabilities(predictor: Predictor) -> torch.Tensor:
        images = predictor._pipeline.normalize([LARGE])
        whole = WholeView(images, corners=torch.tensor([[48, 36]]), patch_size=(64, 64))
        window = images[..., 36:100, 48:112]
        return predictor.backend.forward(window, None, whole).mask_logits.sigmoid()

    mean = torch.stack([probabilities(one) for one in members]).mean(0)
    torch.testing.assert_close(probabilities(together), mean, atol=1e-5, rtol=1e-5)


def test_an_exported_network_cuts_windows_only_if_it_sees_all_that_counts(tmp_path):
    for method in ("unet", "sks"):
        folder = make_model_folder(tmp_path / method, method, sliding_window=True)
        exported = Predictor.from_folder(folder, backend="onnxruntime")
        [small] = exported.predict([LARGE[:64, :64]])
        assert small.mask.shape == (64, 64)
        if method == "unet":
            [one], [other] = (
                exported.predict([LARGE]),
                Predictor.from_folder(folder).predict([LARGE]),
            )
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
            continue
        with pytest.raises(DxsegError, match="coarse branch"):
            exported.predict([LARGE])
        [(_, refused)] = exported.stream([("a", lambda: LARGE)])
        assert str(refused).startswith(str(folder))


def test_images_that_are_reduced_below_the_spacing_are_known(make_predictor):
    image = dots(40, 60)

    def reduced(of_image=None, **options) -> bool:
        return make_predictor(**options).predict([image], spacings=[of_image])[0].reduced

    assert reduced((1.0, 1.0), spacing=(1.0, 1.0))
    assert not reduced((0.5, 0.5), spacing=(1.0, 1.0))
    assert not reduced((1.0, 1.0), spacing=(1.0, 1.0), sliding_window=True)
    assert not reduced()


def test_the_command_overrides_the_model(tmp_path, cli):
    folder = make_model_folder(tmp_path / "model", "unet", sliding_window=True)
    Image.fromarray(LARGE[..., 0]).save(tmp_path / "a.png")
    names = set()
    for word in ("--sliding-window", "--no-sliding-window", None):
        out = tmp_path / str(word)
        words = ["predict", folder, tmp_path / "a.png", "--out", out, *([word] if word else [])]
        assert cli(*words).exit_code == 0
        names.add((out / "predictions.csv").read_text().split(",")[-1])
    assert len(names) == 2
