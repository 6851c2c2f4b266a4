"""Groups of near-duplicate images, for splits of datasets that name no patients.

Public datasets contain the same frame several times: exported again, rescaled, with calipers drawn
on it or under another label. Two images are near-duplicates here when both hold:

1. the Pearson correlation of their 48x48 gray reductions exceeds `threshold`;
2. their 64-bit perceptual hashes differ in at most `radius` bits.

On BUSI (780 images) the hash loses no pair that correlation alone would find: those pairs differ in
at most 12 bits.

**Few correlations are computed.** The correlation of two reductions is the inner product of both,
centered and scaled to length 1. Split off the 15 lowest DCT coefficients (without the mean; the
cosines are orthonormal): what is left has an inner product of at most the product of its lengths
(Cauchy-Schwarz). So the inner product of 16 numbers per image, 15 coefficients and the length of
the rest, is never below the correlation; only pairs in which it exceeds the threshold are
correlated.

**Up to `EXACT` images every pair is compared in that way, beyond that only neighbors.** k-means
(scikit-learn's, mini-batch) divides the 16 numbers into as many cells as the square root of the
number of images; an image is compared with those that share one of its four nearest cells. Time
then grows with the power 1.5. Of 64,000 random crops of ultrasound and CT, that is 8% of the pairs,
and all 5,614 near-duplicate ones were among them (with two cells: 99.9%). Exact indices save
nothing here: in 16 dimensions a k-d tree's time still grew with the square of the number, and
faiss's complete multi-index hashing of the perceptual hashes was 40 times slower than all pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dxseg.data.splits.perceptual_hash import SIDE, ImageHashes, hash_images

THRESHOLD = 0.97
RADIUS = 14
BLOCK = 256
COLUMNS = 8192
CONFIRM_CHUNK = 2048
EXACT = 20_000
"""Number of images up to which all pairs are compared: about a second on one core."""
NEAREST = 4
"""Number of cells in which an image is compared, beyond `EXACT`."""

_FREQUENCIES = 4
_SLACK = 1e-3  # bounds are sums of float32 products
_SAMPLE = 64
"""Images per cell from which the centers are computed."""

Progress = Callable[[int, int], None]


def near_duplicate_groups(
    images: Sequence[Path | NDArray[Any]],
    threshold: float = THRESHOLD,
    *,
    radius: int = RADIUS,
    known: NDArray[np.int64] | None = None,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Find groups of near-duplicate images.

    Groups are transitive: two images of a group may be similar only through a third.

    Args:
        images: Files, or arrays (H, W) or (H, W, C) of any integer or float type.
        threshold: Pearson correlation, in -1..1, above which two images are near-duplicates.
        radius: Bits, of 64, in which the perceptual hashes of near-duplicates may differ.
        known: Number of the patient or volume of each image, shape (N,), -1 where unknown: images
            of one patient are not compared with each other.
        cache: File for hashes of images, so that an interrupted job can continue.
        workers: Processes that read files; default: number of cores.
        progress: Called with (done, total) after each image is read.

    Returns:
        Group of each image, shape (N,): 0, 1, ... in the order of first appearance. An image
        without a near-duplicate has a group of its own.

    Raises:
        DxsegError: A file cannot be read as an image.
    """
    hashed = hash_images(images, cache=cache, workers=workers, progress=progress)
    return group_hashes(hashed, threshold, radius=radius, known=known)


def group_hashes(
    hashed: ImageHashes,
    threshold: float = THRESHOLD,
    *,
    radius: int = RADIUS,
    known: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Find groups of near-duplicates among hashed images.

    Memory grows by about 300 bytes per image; thumbnails may be a memory map.

    Args:
        hashed: Thumbnails and hashes.
        threshold: As in `near_duplicate_groups`.
        radius: As in `near_duplicate_groups`.
        known: As in `near_duplicate_groups`.
        progress: Called with (done, total) parts of the search.

    Returns:
        Group of each image, shape (N,), as in `near_duplicate_groups`.
    """
    total = len(hashed)
    if total == 0:
        return np.zeros(0, np.int64)
    same = _identical(hashed)
    kept = np.flatnonzero(same == np.arange(total))
    owner = _owners(kept, same, known)
    points = _points(hashed.thumbnails, kept)
    groups = np.arange(len(kept), dtype=np.int64)
    cells = _cells(points)
    for number, cell in enumerate(cells, start=1):
        for first, second in _candidates(points, cell, threshold):
            # Pairs that are joined already need no confirmation: this keeps sets of very similar
            # frames (videos, CT slices) from a correlation for every pair.
            new = (groups[first] != groups[second]) & (
                (owner[first] != owner[second]) | (owner[first] < 0)
            )
            first, second = first[new], second[new]
            alike = _hash_distance(hashed.hashes, kept[first], kept[second]) <= radius
            first, second = first[alike], second[alike]
            alike = _correlated(hashed.thumbnails, kept[first], kept[second], threshold)
            if alike.any():
                edges = (first[alike], second[alike])
                groups = label_components(len(kept), [(groups, np.arange(len(kept))), edges])
        if progress is not None:
            progress(number, len(cells))
    return number_by_appearance(kept[groups][np.searchsorted(kept, same)])


def label_components(
    total: int, relations: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> NDArray[np.int64]:
    """Find the connected components of a graph over cases.

    Args:
        total: Number of nodes.
        relations: Pairs of equally long arrays of node indices: one edge per position.

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


def _identical(hashed: ImageHashes) -> NDArray[np.int64]:
    """Find for each row the first one with the same thumbnail and hash, shape (N,).

    Without this, a thousand black slices would be half a million pairs.
    """
    first: dict[bytes, int] = {}
    result = np.empty(len(hashed), np.int64)
    for row in range(len(hashed)):
        content = hashed.thumbnails[row].tobytes() + hashed.hashes[row].tobytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        result[row] = first.setdefault(digest, row)
    return result


def _owners(
    kept: NDArray[np.int64], same: NDArray[np.int64], known: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Find the patient of each kept row, -1 if unknown or if its copies are of several patients."""
    if known is None:
        return np.full(len(kept), -1, np.int64)
    owner = known.copy()
    owner[same[known != known[same]]] = -1
    return owner[kept]


def _points(thumbnails: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Map each thumbnail to the 16 coordinates of the module's docstring, (N, 16)."""
    cosines = dct(np.eye(SIDE), norm="ortho", axis=0)[:_FREQUENCIES]
    basis = np.kron(cosines, cosines)[1:].T.astype(np.float32)
    points = np.empty((len(rows), basis.shape[1] + 1), np.float32)
    for start in range(0, len(rows), BLOCK):
        chunk = slice(start, start + BLOCK)
        unit = _standardised(thumbnails[rows[chunk]])[:, :-1]
        points[chunk, :-1] = unit @ basis
        rest = (unit**2).sum(axis=1) - (points[chunk, :-1] ** 2).sum(axis=1)
        points[chunk, -1] = np.sqrt(rest.clip(min=0))
    return points


def _cells(points: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    """Divide rows into overlapping cells of neighbors; the rows of each cell are in order."""
    total = len(points)
    if total <= EXACT:
        return [np.arange(total)]
    from sklearn.cluster import MiniBatchKMeans

    count = round(total**0.5)
    sample = np.random.default_rng(0).choice(total, min(total, _SAMPLE * count), replace=False)
    kmeans = MiniBatchKMeans(count, init="random", n_init=1, max_iter=20, random_state=0)
    centers = kmeans.fit(points[sample]).cluster_centers_.astype(np.float32)
    nearest = np.empty((total, NEAREST), np.int64)
    for start in range(0, total, COLUMNS):
        rows = slice(start, start + COLUMNS)
        distance = (centers**2).sum(axis=1) - 2 * points[rows] @ centers.T
        nearest[rows] = np.argpartition(distance, NEAREST, axis=1)[:, :NEAREST]
    order = np.argsort(nearest.ravel(), kind="stable")
    ends = np.searchsorted(nearest.ravel()[order], np.arange(1, count))
    return [cell for cell in np.split(order // NEAREST, ends) if len(cell) > 1]


def _candidates(
    points: NDArray[np.float32], cell: NDArray[np.int64], threshold: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield pairs of rows of a cell that may correlate, in parts, first < second."""
    for start in range(0, len(cell), BLOCK):
        rows = cell[start : start + BLOCK]
        for part in range(start, len(cell), COLUMNS):
            columns = cell[part : part + COLUMNS]
            bound = points[rows] @ points[columns].T
            # Two flat images have no correlation, but are the same.
            bound[_flat(points[rows])[:, None] & _flat(points[columns])] = 1
            first, second = np.nonzero(bound > threshold - _SLACK)
            first, second = rows[first], columns[second]
            yield first[first < second], second[first < second]


def _flat(points: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(~points.any(axis=1))


def _hash_distance(
    hashes: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count the bits in which the hashes of each pair of rows differ, (P,)."""
    different = np.bitwise_xor(hashes[first], hashes[second])
    return np.asarray(np.unpackbits(different, axis=1).sum(axis=1), np.int64)


def _correlated(
    thumbnails: NDArray[np.uint8],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    threshold: float,
) -> NDArray[np.bool_]:
    """Flag the pairs of rows whose correlation exceeds the threshold."""
    parts = [np.zeros(0, np.bool_)]
    for start in range(0, len(first), CONFIRM_CHUNK):
        chunk = slice(start, start + CONFIRM_CHUNK)
        a, b = _standardised(thumbnails[first[chunk]]), _standardised(thumbnails[second[chunk]])
        parts.append(np.einsum("ij,ij->i", a, b) > threshold)
    return np.concatenate(parts)


def _standardised(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Center rows and scale them to length 1; a flat row correlates with flat rows only."""
    centered = rows.astype(np.float32)
    centered -= centered.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    flat = length < 1e-6
    centered /= np.where(flat, np.float32(1), length)
    return np.concatenate([centered, flat.astype(np.float32)], axis=1)
