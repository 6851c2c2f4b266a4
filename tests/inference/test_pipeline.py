from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from brightness import Maker, bright_square
from dxseg.inference.pipeline import flip_average
from dxseg.inference.predictor import Predictor


def test_the_mirrored_prediction_is_mirrored_back_and_averaged() -> None:
    def predict(images: Tensor) -> list[Tensor | None]:
        """The number of the column, whatever the image; further maps at stride 4."""
        columns = torch.arange(images.shape[-1]).float().expand(images.shape)
        labels = images.mean((2, 3)) + images[..., 0].mean(2)
        return [columns + images, labels, columns[..., ::4], images[..., ::4], None]

    x = torch.rand(2, 1, 8, 8)
    masks, labels, evidence, features, absent = flip_average(predict, x)
    torch.testing.assert_close(masks, x + 3.5)
    torch.testing.assert_close(evidence, torch.full((2, 1, 8, 2), 2.0))
    torch.testing.assert_close(features, (x[..., [0, 4]] + x[..., [3, 7]]) / 2)
    edges = (x[..., 0].mean(2) + x[..., -1].mean(2)) / 2
    torch.testing.assert_close(labels, x.mean((2, 3)) + edges)
    assert absent is None


@pytest.mark.parametrize("sliding_window", [False, True])
def test_flip_averages_probabilities_not_logits(
    sliding_window: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Maker()
    plain = make(sliding_window=sliding_window)
    network = make.networks[-1]
    predict = type(network)._forward_padded

    def lopsided(self, x: Tensor, *others):  # type: ignore[no-untyped-def]
        shift = torch.zeros_like(x)
        shift[..., : x.shape[-1] // 2] = 0.4
        return predict(self, x + shift, *others)

    monkeypatch.setattr(type(network), "_forward_padded", lopsided)
    image = bright_square(32, 32)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    flipping = Predictor(network, plain.info, flip=True)
    one, other = Predictor(network, plain.info).predict([image, mirrored])
    mean = (one.probabilities + other.probabilities[..., ::-1]) / 2
    [found] = flipping.predict([image])
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-6)
    assert found.label_probabilities is not None
    for label, value in found.label_probabilities.items():
        pair = one.label_probabilities[label], other.label_probabilities[label]  # type: ignore[index]
        assert value == pytest.approx(sum(pair) / 2, abs=1e-6)
