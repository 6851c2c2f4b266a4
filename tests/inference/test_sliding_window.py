from __future__ import annotations

import numpy as np
import torch

from dxseg.inference.components import ComponentFilter
from dxseg.inference.predictor import Predictor
from dxseg.inference.sliding_window import pad_to_window, predict_windows


def windowed(make_predictor, **options) -> Predictor:
    plain = make_predictor(**options)
    return Predictor(make_predictor.networks[-1], plain.info, batch_size=4, sliding_window=True)


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
    found = predict_windows(torch.rand(1, 1, 70, 90), 32, lambda x: x * 0 + 3, 2)
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
