"""The slices of a volume together, after the network has seen each alone.

Mask probabilities are averaged with those of neighboring slices, and connected components are those
of the volume. Slices come one after the other, so that the average needs a few of them in memory;
`scipy.ndimage.gaussian_filter1d` would need all.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dxseg.data.table.volumes import SlicePosition
from dxseg.errors import DxsegError
from dxseg.inference.components import ComponentFilter
from dxseg.inference.label_prompt import labels_imply_lesion
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.pipeline import NetworkOutput, Prediction, PreprocessedImage

TRUNCATE = 3.0
"""Standard deviations after which the Gaussian ends."""

Output = tuple[str, PreprocessedImage | DxsegError, NetworkOutput | None]
"""Name of an image, the image and what the network predicts; an error in place of both."""
Positions = Mapping[str, SlicePosition]
"""Where in its volume each image is that is a slice."""
Finish = Callable[[Output], Prediction | DxsegError]


def smoothing_reach(sigma_mm: float, distance: float | None) -> int:
    """How many slices on either side count in the average of a slice.

    Args:
        sigma_mm: Standard deviation of the Gaussian, millimeters.
        distance: Millimeters between slices; None where unknown.
    """
    return 0 if distance is None else int(TRUNCATE * sigma_mm / distance + 0.5)


def smooth_along_axis(
    outputs: Iterable[Output], positions: Positions, sigma_mm: float
) -> Iterator[Output]:
    """Average mask probabilities along the axis of each volume, weighted by a Gaussian.

    At the ends, and beside slices that are missing or have failed, the weights of the others add up
    to one.

    Args:
        outputs: The slices of a volume beside each other, in their order.
        positions: Of the slices; other images pass as they are, and so do slices whose distance
            is unknown.
        sigma_mm: Standard deviation of the Gaussian, millimeters; 0: nothing is averaged.
    """
    for volume, slices in _by_volume(outputs, positions):
        if volume is None or sigma_mm == 0:
            yield from slices
        else:
            yield from _smooth_volume(slices, positions, sigma_mm)


def filter_volumes(
    outputs: Iterable[Output], positions: Positions, info: ModelInfo, finish: Finish
) -> Iterator[tuple[str, Prediction | DxsegError]]:
    """Make predictions, and remove components of the masks of each volume.

    Memory holds the network's outputs for one volume, whose predictions are made twice: the masks
    of all its slices decide about each.

    Args:
        outputs: The slices of a volume beside each other, in their order.
        positions: Of the slices; no component is removed from other images.
        info: Of the model, whose filter is by volume.
        finish: Makes a prediction of an output.
    """
    assert info.components is not None, "the caller has checked"
    for volume, slices in _by_volume(outputs, positions):
        if volume is None:
            yield from ((one[0], finish(one)) for one in slices)
            continue
        held = list(slices)
        masks = _filter(held, positions, info, info.components, finish)
        for one in held:
            result = finish(one)
            if isinstance(result, Prediction) and one[0] in masks:
                result = replace(result, mask=masks[one[0]])
            yield one[0], result


def _by_volume(
    outputs: Iterable[Output], positions: Positions
) -> Iterator[tuple[str | None, Iterator[Output]]]:
    def volume(one: Output) -> str | None:
        position = positions.get(one[0])
        return None if position is None else position.volume

    return itertools.groupby(outputs, volume)


def _smooth_volume(
    slices: Iterable[Output], positions: Positions, sigma_mm: float
) -> Iterator[Output]:
    held: deque[Output] = deque()
    waiting = 0
    """Position in `held` of the next slice to yield; those before it are its neighbors."""

    def index(one: Output) -> int:
        return positions[one[0]].index

    for newest in slices:
        reach = smoothing_reach(sigma_mm, positions[newest[0]].spacing)
        held.append(newest)
        while waiting < len(held) and index(held[waiting]) + reach <= index(newest):
            yield _average(held[waiting], held, positions, sigma_mm)
            waiting += 1
        while waiting and index(held[0]) < index(newest) + 1 - 2 * reach:
            held.popleft()
            waiting -= 1
    while waiting < len(held):
        yield _average(held[waiting], held, positions, sigma_mm)
        waiting += 1


def _average(
    one: Output, others: Iterable[Output], positions: Positions, sigma_mm: float
) -> Output:
    name, item, output = one
    position = positions[name]
    reach = smoothing_reach(sigma_mm, position.spacing)
    if output is None or position.spacing is None or reach == 0:
        return one
    total, weights = output.masks, 1.0
    for other, _, found in others:
        steps = abs(positions[other].index - position.index)
        # Slices of other sizes show other places at the same pixel.
        if found is None or not 0 < steps <= reach or found.masks.shape != output.masks.shape:
            continue
        weight = math.exp(-0.5 * (steps * position.spacing / sigma_mm) ** 2)
        total, weights = total + weight * found.masks, weights + weight
    return name, item, replace(output, masks=total / weights)


def _filter(
    held: Sequence[Output],
    positions: Positions,
    info: ModelInfo,
    components: ComponentFilter,
    finish: Finish,
) -> dict[str, NDArray[np.uint8]]:
    """Masks by name, without the components that are removed; none where sizes differ."""
    indices = [positions[name].index for name, _, _ in held]
    first, slices = min(indices), max(indices) - min(indices) + 1
    stack: NDArray[np.uint8] | None = None
    found, known, scale = [], set(), 1.0
    for one in held:
        name, item, _ = one
        result = finish(one)
        if isinstance(result, DxsegError) or isinstance(item, DxsegError):
            continue
        if stack is None:
            stack, scale = (
                np.zeros((slices, *result.mask.shape), np.uint8),
                item.mask_geometry.area_scale,
            )
        if stack.shape[1:] != result.mask.shape:
            return {}
        stack[positions[name].index - first] = result.mask
        found.append(name)
        if labels_imply_lesion(item.label_prompt, info):
            known.add(name)
    if stack is None:
        return {}
    voxel_mm3 = positions[found[0]].voxel_mm3
    kept = components.apply(stack, scale=scale, voxel_mm3=voxel_mm3)
    for index in (positions[name].index - first for name in known):
        # Where a slice is known to have a lesion, its mask is never without one.
        lesion = np.isin(stack[index], info.lesion_values)
        if not kept[index][lesion].any():
            kept[index][lesion] = stack[index][lesion]
    return {name: kept[positions[name].index - first] for name in found}
