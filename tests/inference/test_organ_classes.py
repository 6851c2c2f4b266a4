"""A lesion that is known is found beside organs, in images and in volumes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from brightness import BrightnessSegmenter
from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume import Volume
from dxseg.data.table.volumes import SlicePosition
from dxseg.inference.components import ComponentFilter
from dxseg.inference.files.volumes import predict_volume
from dxseg.inference.predictor import Predictor

SIZE, SLICES, ILL = 32, 6, 3
ORGAN, NOTHING, LESION = 250, 60, 0


class OrganAndLesion(BrightnessSegmenter):
    """Class 1 is bright; class 2 is black, of which the network is never certain."""

    def _forward_padded(self, x, known, whole):
        output = super()._forward_padded(x, known, whole)
        return replace(output, mask_logits=torch.cat([20 * x, 20 * (-0.55 - x)], dim=1))


@pytest.fixture
def make_organ_predictor(make_predictor):
    def make(**changes):
        base = make_predictor(slicing=Slicing(window=(127.5, 255.0)), lesion_free=("normal",))
        classes = {"mask_classes": ["organ", "lesion"], "lesion_classes": ["lesion"]}
        return Predictor(OrganAndLesion(), base.info.model_copy(update=classes | changes))

    return make


def gray() -> np.ndarray:
    """An organ through all slices (D, H, W), and a lesion in one."""
    slices = np.full((SLICES, SIZE, SIZE), NOTHING, np.uint8)
    slices[:, 4:20, 4:20] = ORGAN
    slices[ILL, 8:10, 8:10] = LESION
    return slices


def test_the_organ_is_not_the_lesion_that_an_image_is_known_to_have(make_organ_predictor):
    image = gray()[ILL][..., None]
    unknown, known = make_organ_predictor().predict([image] * 2, [None, "bright"])
    assert set(np.unique(unknown.mask)) == {0, 1}
    assert np.array_equal(known.mask == 2, image[..., 0] == LESION)
    assert np.array_equal(known.mask == 1, image[..., 0] == ORGAN)
    filtered = make_organ_predictor(components=ComponentFilter(min_area=12))
    [kept] = filtered.predict([image], ["bright"])
    assert np.array_equal(kept.mask, known.mask)


def test_the_organ_is_not_the_lesion_that_a_volume_is_known_to_have(make_organ_predictor):
    slices = gray()
    voxels = np.ascontiguousarray(slices.transpose(2, 1, 0)[::-1, ::-1], np.float32)
    volume = Volume(voxels, np.eye(4))
    assert not (predict_volume(make_organ_predictor(), volume).slices == 2).any()
    found = predict_volume(make_organ_predictor(), volume, label="bright").slices
    assert np.array_equal(found == 2, slices == LESION)
    assert np.array_equal(found == 1, slices == ORGAN)


def test_a_slice_whose_organ_stays_keeps_the_lesion_it_is_known_to_have(make_organ_predictor):
    chosen = ComponentFilter(by_volume=True, min_area=12)
    stream = make_organ_predictor(components=chosen).stream(
        [(str(n), partial(np.array, pixels[..., None])) for n, pixels in enumerate(gray())],
        labels={str(ILL): "bright"},
        positions={str(n): SlicePosition("a", n, 1.0) for n in range(SLICES)},
    )
    masks = np.stack([result.mask for _, result in stream])
    assert np.array_equal(masks == 2, gray() == LESION)
    assert np.array_equal(masks == 1, gray() == ORGAN)
