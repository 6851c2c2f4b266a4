from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_phantom import make_image, save
from dxseg.config.network import ModelConfig
from dxseg.data.preprocessing import Preprocessing
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.model_folder import save_model_folder
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.pipeline import Prediction
from dxseg.inference.postprocess import to_mask
from dxseg.inference.predictor import Predictor
from dxseg.inference.sources import SpacedImage
from dxseg.models.factory import Task, build_model


def square(height: int, width: int, side: int = 8, value: int = 250) -> np.ndarray:
    image = np.full((height, width, 1), 10, np.uint8)
    image[4 : 4 + side, 4 : 4 + side] = value
    return image


def test_a_bright_square_is_the_mask_exactly_at_network_size(make_predictor):
    [prediction] = make_predictor(size=32).predict([square(32, 32)])
    expected = square(32, 32)[:, :, 0] > 127
    assert (prediction.mask == expected).all()
    assert prediction.mask.dtype == np.uint8
    p = 1 / (1 + np.exp(-20 * (250 / 255 - 0.5)))
    assert prediction.probabilities.shape == (1, 32, 32)
    assert prediction.probabilities[0, 5, 5] == pytest.approx(p, abs=1e-6)
    assert prediction.confidence == pytest.approx(p, abs=1e-6)
    assert prediction.label_probabilities == pytest.approx({"normal": 1 - p, "bright": p}, abs=1e-6)


def test_no_lesion_is_as_confident_as_its_peak_is_low(make_predictor):
    [prediction] = make_predictor().predict([np.full((20, 20, 1), 10, np.uint8)])
    assert not prediction.mask.any()
    assert prediction.confidence == pytest.approx(1 / (1 + np.exp(20 * (10 / 255 - 0.5))), abs=1e-6)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(height=st.integers(1, 300), width=st.integers(1, 300), deep=st.booleans())
def test_results_have_the_size_of_the_input(make_predictor, height, width, deep):
    image = np.zeros((height, width, 1), np.uint16 if deep else np.uint8)
    [prediction] = make_predictor(size=32, high=4000.0 if deep else 255.0).predict([image])
    assert prediction.mask.shape == (height, width)
    assert prediction.probabilities.shape == (1, height, width)
    assert prediction.probabilities.dtype == np.float32
    labels, rows, columns = prediction.evidence.shape
    assert labels == 2
    assert max(rows, columns) == 8
    assert rows == min(8, -(-round(32 * height / max(height, width)) // 4) or 1)


@pytest.mark.parametrize(("height", "width"), [(320, 200), (64, 64), (16, 12), (33, 257)])
def test_a_lesion_stays_where_it_is_through_any_resizing(make_predictor, height, width):
    image = np.full((height, width, 1), 10, np.uint8)
    box = (slice(height // 4, height * 3 // 4), slice(width // 4, width * 3 // 4))
    image[box] = 250
    [prediction] = make_predictor(size=64).predict([image])
    truth = image[:, :, 0] > 127
    overlap = (truth & (prediction.mask > 0)).sum() / (truth | (prediction.mask > 0)).sum()
    assert overlap > 0.8
    rows, columns = np.nonzero(prediction.mask)
    assert abs(rows.mean() - np.nonzero(truth)[0].mean()) < 0.02 * max(height, width)
    assert abs(columns.mean() - np.nonzero(truth)[1].mean()) < 0.02 * max(height, width)


def test_the_batch_size_does_not_matter(tmp_path, rng_images):
    model = ModelConfig(backbone="test_efficientnet", decoder_channels=(8, 8, 4, 4, 4))
    torch.manual_seed(0)
    save_model_folder(
        tmp_path,
        build_model(model, Task(1, 1, 2, lesion_free=(0,)), pretrained=False),
        ModelInfo(
            model=model,
            preprocessing=Preprocessing(image_size=64, channels=1, mean=(0.5,), std=(0.25,)),
            labels=["a", "b"],
        ),
    )
    whole = Predictor.from_folder(tmp_path, batch_size=7).predict(rng_images)
    for size in (1, 2, 5):
        parts = Predictor.from_folder(tmp_path, batch_size=size).predict(rng_images)
        assert len(parts) == len(whole) == 7
        for one, other in zip(parts, whole, strict=True):
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
            assert one.label_probabilities == pytest.approx(other.label_probabilities, abs=1e-5)
            np.testing.assert_allclose(one.evidence, other.evidence, atol=1e-5)


@pytest.fixture
def rng_images() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    sizes = [(40, 60), (64, 64), (9, 100), (128, 30), (64, 64), (1, 1), (77, 50)]
    return [generator.integers(0, 256, (*size, 1), dtype=np.uint8) for size in sizes]


def test_the_stream_says_what_predict_says_in_order_around_bad_files(
    make_predictor, tmp_path, write_image
):
    images = [square(32, 32 + index, side=3 + index) for index in range(11)]
    items = [(f"n{index}", tmp_path / f"{index}.png") for index in range(11)]
    for image, (_, path) in zip(images, items, strict=True):
        write_image(path, image)
    bad = {2: b"", 3: b"not an image", 10: items[10][1].read_bytes()[:60]}
    for index, content in bad.items():
        items[index][1].write_bytes(content)
    items[5][1].unlink()
    for size in (1, 3, 4, 20):
        predictor = make_predictor(batch_size=size)
        results = list(predictor.stream(iter(items)))
        assert [name for name, _ in results] == [name for name, _ in items]
        for index, (_, result) in enumerate(results):
            if index in (*bad, 5):
                assert isinstance(result, DxsegError)
                assert str(items[index][1]) in str(result)
                continue
            assert isinstance(result, Prediction)
            assert result.image is None
            [expected] = predictor.predict([images[index]])
            np.testing.assert_allclose(result.probabilities, expected.probabilities, atol=1e-6)


def test_images_are_kept_only_when_asked_for(make_predictor, tmp_path, write_image):
    path = write_image(tmp_path / "a.png", square(20, 30))
    [(_, result)] = make_predictor().stream([("a", path)], keep_images=True)
    assert (result.image == square(20, 30)).all()


def test_the_look_ahead_is_bounded_on_an_endless_input(make_predictor, tmp_path, write_image):
    path = write_image(tmp_path / "a.png")
    before = set(threading.enumerate())
    taken = itertools.count()
    position = 0

    def endless():
        nonlocal position
        for position in taken:
            yield f"{position}", path

    stream = make_predictor(batch_size=4).stream(endless())
    for given_out, (name, result) in enumerate(itertools.islice(stream, 30)):
        assert name == str(given_out)
        assert isinstance(result, Prediction)
        assert position + 1 <= given_out + 3 * 4
    stream.close()
    left = set(threading.enumerate()) - before
    assert not [one for one in left if one.name.startswith("dxseg-")]


def test_decoding_network_and_results_overlap(make_predictor, tmp_path, write_image):
    """While results of one batch are taken, the next is computed and the one after is read."""
    path = write_image(tmp_path / "a.png")
    predictor = make_predictor(batch_size=2)
    seen: list[str] = []

    def source():
        for index in range(8):
            seen.append(f"{index}")
            yield f"{index}", path

    stream = predictor.stream(source())
    next(stream)
    assert seen == ["0", "1", "2", "3", "4", "5"]
    stream.close()
    assert len(make_predictor.networks[-1].batches) >= 1


def test_an_empty_stream_ends(make_predictor):
    assert list(make_predictor().stream([])) == []
    assert make_predictor().predict([]) == []


def test_one_network_call_a_batch_of_one_shape(make_predictor):
    predictor = make_predictor(batch_size=4, size=32)
    predictor.predict([square(20 + index, 60) for index in range(9)])
    assert make_predictor.networks[-1].batches == [(4, 1, 32, 32), (4, 1, 32, 32), (1, 1, 32, 32)]


def test_a_network_without_labels_says_none(make_predictor):
    [prediction] = make_predictor(labels=()).predict([square(32, 32)])
    assert prediction.label_probabilities is None
    assert prediction.evidence is None


def test_features_are_averaged_over_the_image_and_not_over_its_padding(make_predictor):
    image = np.zeros((64, 32, 1), np.uint8)
    image[:32] = 255
    [prediction] = make_predictor(size=64).predict([image])  # brightness minus half
    assert prediction.features == pytest.approx([0.0], abs=1e-6)
    [brighter] = make_predictor(size=64).predict([image[:32]])
    assert brighter.features == pytest.approx([0.5], abs=1e-6)


def test_several_labels_have_a_sigmoid_each(make_predictor):
    [prediction] = make_predictor(multi_label=True).predict([square(32, 32)])
    assert prediction.label_probabilities["normal"] == pytest.approx(0.5)
    assert prediction.label_probabilities["bright"] > 0.99


def test_gray_and_color_turn_into_each_other(make_predictor):
    gray = square(32, 32)
    color = np.repeat(gray, 3, axis=2)
    [one] = make_predictor(channels=3).predict([gray])
    [other] = make_predictor(channels=1).predict([color])
    assert (one.mask == other.mask).all()
    assert one.mask.any()
    with pytest.raises(DxsegError, match="channel"):
        make_predictor(channels=3).predict([np.zeros((8, 8, 5), np.uint8)])


def test_another_bit_depth_than_in_training_is_refused(make_predictor):
    deep = square(32, 32).astype(np.uint16) * 16
    with pytest.raises(DxsegError, match="uint16"):
        make_predictor(high=4000.0).predict([square(32, 32)])
    with pytest.raises(DxsegError, match="uint8"):
        make_predictor().predict([deep])
    [prediction] = make_predictor(high=4000.0).predict([deep])
    assert prediction.mask.sum() == 64


def test_output_that_is_no_number_is_an_error_and_not_an_empty_mask(
    make_predictor, tmp_path, write_image
):
    predictor = make_predictor()
    network = make_predictor.networks[-1]

    def broken(x: torch.Tensor, *others):
        out = type(network)._forward_padded(network, x, *others)
        out.mask_logits[1] = float("nan")
        return out

    network._forward_padded = broken
    path = write_image(tmp_path / "a.png")
    results = [result for _, result in predictor.stream([("a", path), ("b", path), ("c", path)])]
    assert [isinstance(result, Prediction) for result in results] == [True, False, True]
    assert "not finite" in str(results[1])
    with pytest.raises(DxsegError, match="not finite"):
        predictor.predict([square(32, 32)] * 2)


def test_to_mask_takes_the_likeliest_class_that_reaches_the_threshold():
    probabilities = np.array([[[0.6, 0.6, 0.2, 0.5]], [[0.3, 0.7, 0.49, 0.5]]], np.float32)
    assert to_mask(probabilities, 0.5).tolist() == [[1, 2, 0, 1]]
    assert to_mask(probabilities[:1], 0.5).tolist() == [[1, 1, 0, 1]]
    assert to_mask(probabilities, 0.5).dtype == np.uint8
    many = np.random.default_rng(0).integers(0, 9, (4, 40, 50)).astype(np.float32) / 8
    expected = np.where(many.max(axis=0) >= 0.75, many.argmax(axis=0) + 1, 0)
    assert np.array_equal(to_mask(many, 0.75), expected)


def test_the_threshold_of_the_model_folder_decides(make_predictor):
    image = square(32, 32, value=120)  # probability 1 / (1 + e^0.59) = 0.357
    assert not make_predictor().predict([image])[0].mask.any()
    assert make_predictor(threshold=0.3).predict([image])[0].mask.sum() == 64


@pytest.mark.parametrize(("device", "batch_size"), [("no such", 1), ("cpu", 0)])
def test_impossible_settings_are_usage_errors(make_predictor, device, batch_size):
    predictor = make_predictor()
    with pytest.raises(UsageError):
        Predictor(make_predictor.networks[-1], predictor.info, device, batch_size)


def test_no_gradients_are_kept_and_the_mode_of_the_caller_is_not_changed(make_predictor):
    predictor = make_predictor()
    predictor.predict([square(32, 32)])
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_an_image_on_which_the_network_fails_fails_alone(make_predictor, tmp_path, write_image):
    predictor = make_predictor(batch_size=4)
    forward = predictor.backend.forward

    def fail(images, prompts):
        if bool((images > 0.4).any()):
            raise RuntimeError("out of memory")
        return forward(images, prompts)

    predictor.backend.forward = fail
    paths = [
        write_image(tmp_path / f"{number}.png", square(32, 32, value=255 if number == 1 else 150))
        for number in range(3)
    ]
    results = dict(predictor.stream((path.name, path) for path in paths))
    assert isinstance(results["1.png"], DxsegError)
    assert "RuntimeError: out of memory" in str(results["1.png"])
    assert [results[name].mask.shape for name in ("0.png", "2.png")] == [(32, 32)] * 2


def test_images_are_predicted_at_the_spacing_of_the_network(make_predictor):
    """A stripe of one fine column is averaged away at 2 mm, and seen where its pixels are 2 mm."""
    image = np.full((32, 32, 1), 10, np.uint8)
    image[:, 8] = 250
    predictor = make_predictor(spacing=(2.0, 2.0))
    fine, coarse, unknown = predictor.predict([image] * 3, spacings=[(0.5, 0.5), (2.0, 2.0), None])
    assert not fine.mask.any()
    for found in (coarse, unknown):
        assert (found.mask == (image[:, :, 0] > 127)).all()
    with pytest.raises(UsageError, match="spacings has 1 entries for 2 images"):
        predictor.predict([image] * 2, spacings=[None])


def test_a_stream_takes_the_spacing_that_is_given_or_that_of_the_file(make_predictor, tmp_path):
    pixels = np.full((32, 32), 10, np.uint8)
    pixels[:, 8] = 250
    path = save(make_image(pixels, PixelSpacing=[0.5, 0.5]), tmp_path / "a.dcm")
    predictor = make_predictor(spacing=(2.0, 2.0))
    items = {
        "of the file": path,
        "given": SpacedImage(path, (2.0, 2.0)),
        "unknown": SpacedImage(path, None),
        "pixels": SpacedImage(lambda: pixels[:, :, None], (0.5, 0.5)),
    }
    found = {name: bool(result.mask.any()) for name, result in predictor.stream(items.items())}
    assert found == {"of the file": False, "given": True, "unknown": True, "pixels": False}


def test_an_image_without_channels_is_refused(make_predictor):
    with pytest.raises(UsageError, match=r"image 1: .*\(32, 32\); expected .*channels"):
        make_predictor().predict([square(32, 32), square(32, 32)[:, :, 0]])
