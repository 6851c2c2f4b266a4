"""Groups of near-duplicate images, for splits of datasets that name no patients.

Public sets hold the same frame several times: re-exported, rescaled, with calipers drawn on it or
under another label. Two images are near-duplicates here when both hold:

1. their 64-bit perceptual hashes (DCT of a 32x32 reduction, Zauner 2010, as in ``imagehash``)
   differ in at most ``radius`` bits, a cheap test made for all pairs by blocked matrix products;
2. the Pearson correlation of their 48x48 grey reductions exceeds ``threshold``.

On BUSI (780 images) the hash radius loses no pair that correlation alone would find: those pairs
differ in at most 12 bits, while 16 bits already let ten times as many candidates through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dxseg.data.readers import read_image

SIDE = 48
BLOCK = 256
CONFIRM_CHUNK = 2048


def near_duplicate_groups(
    images: Sequence[Path | NDArray[Any]],
    threshold: float = 0.97,
    *,
    radius: int = 14,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.int64]:
    """Number the groups of images that show the same thing.

    Being near-duplicates is closed transitively, so a group may hold two images that are alike
    only through a third. Time grows with the square of the number of images, but with a small
    constant (64 multiply-adds a pair); memory is about 2.6 kB an image.

    Args:
        images: Files, or arrays (H, W) or (H, W, C) of any integer or float type.
        threshold: Pearson correlation, in -1..1, above which two images are near-duplicates.
        radius: Bits, of 64, in which the perceptual hashes of candidates may differ.
        progress: Called as ``progress(done, total)`` after each image is read.

    Returns:
        Group of each image, shape (N,): 0, 1, ... in the order of first appearance. An image
        without a near-duplicate has a group of its own.

    Raises:
        DxsegError: If a file cannot be read as an image.
    """
    total = len(images)
    thumbnails = np.zeros((total, SIDE * SIDE), np.uint8)
    # Bits as -1/+1, so that a product of two rows is 64 minus twice their Hamming distance.
    signs = np.full((total, 64), -1, np.float32)
    for index, image in enumerate(images):
        thumbnails[index], signs[index] = _describe(image)
        if progress is not None:
            progress(index + 1, total)

    groups = np.arange(total, dtype=np.int64)
    for start in range(0, total, BLOCK):
        likeness = signs[start : start + BLOCK] @ signs[start:].T
        first, second = np.nonzero(likeness >= 64 - 2 * radius)
        first, second = first + start, second + start
        # Pairs that earlier blocks have joined already need no confirmation: this keeps sets of
        # very similar frames (videos, CT slices) from costing a correlation for every pair.
        new = (first < second) & (groups[first] != groups[second])
        first, second = first[new], second[new]
        same = _correlated(thumbnails, first, second, threshold)
        groups = join(total, [(groups, np.arange(total)), (first[same], second[same])])
    return number_by_appearance(groups)


def join(
    total: int, relations: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> NDArray[np.int64]:
    """Number the connected components of a graph over cases.

    Args:
        total: Number of nodes.
        relations: Pairs of equally long arrays of node indices: one edge for each position.

    Returns:
        Lowest node index of each node's component, shape (total,).
    """
    if total == 0:
        return np.zeros(0, np.int64)
    rows = np.concatenate([pair[0] for pair in relations])
    columns = np.concatenate([pair[1] for pair in relations])
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(total, total))
    _, component = connected_components(graph, directed=False)
    _, lowest = np.unique(component, return_index=True)
    return np.asarray(lowest[component], np.int64)


def number_by_appearance(values: NDArray[Any]) -> NDArray[np.int64]:
    """Replace values by 0, 1, ... in the order in which they first appear, shape (N,)."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[inverse]


def _describe(image: Path | NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the 48x48 grey reduction (2304,) and the hash as 64 signs."""
    pixels = read_image(image) if isinstance(image, Path) else image
    grey = _as_grey8(pixels)
    # BILINEAR with Pillow's reduction window is a triangle filter: smoother than a box, so that
    # rescaled copies of one frame, whose pixels fall on other grid points, still correlate.
    thumbnail = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.uint8).ravel()
    if thumbnail.min() == thumbnail.max():
        # The hash of a flat image is rounding noise; all flat images shall meet.
        return thumbnail, np.full(64, -1, np.float32)
    bits = imagehash.phash(grey).hash.ravel()
    return thumbnail, np.where(bits, 1, -1).astype(np.float32)


def _as_grey8(pixels: NDArray[Any]) -> Image.Image:
    """Average the channels and, unless they are 8-bit, stretch the range to 0..255."""
    grey = pixels.astype(np.float32)
    if grey.ndim == 3:
        grey = grey.mean(axis=2)
    if pixels.dtype != np.uint8:
        low, high = float(grey.min()), float(grey.max())
        # Correlation and hash ignore gain and offset, so a stretch for each image is safe.
        grey = (grey - low) * (255 / (high - low) if high > low else 0)
    return Image.fromarray(np.rint(grey).astype(np.uint8))


def _correlated(
    thumbnails: NDArray[np.uint8],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    threshold: float,
) -> NDArray[np.bool_]:
    """Say for each pair of rows whether its correlation exceeds the threshold."""
    parts = [np.zeros(0, np.bool_)]
    for start in range(0, len(first), CONFIRM_CHUNK):
        chunk = slice(start, start + CONFIRM_CHUNK)
        a, b = _standardised(thumbnails[first[chunk]]), _standardised(thumbnails[second[chunk]])
        parts.append(np.einsum("ij,ij->i", a, b) > threshold)
    return np.concatenate(parts)


def _standardised(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Centre rows and scale them to length 1; a flat row correlates with flat rows only."""
    centred = rows.astype(np.float32)
    centred -= centred.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = length < 1e-6
    centred /= np.where(flat, np.float32(1), length)
    return np.concatenate([centred, flat.astype(np.float32)], axis=1)
