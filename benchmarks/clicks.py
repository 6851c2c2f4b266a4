"""Interactions per mask on the page: clicks and boxes against a brush, by a simulated user.

    PYTHONPATH=tests python benchmarks/clicks.py data/busi --splits splits.csv --run runs/unet

The user of the literature on interactive segmentation (Sofiiuk et al., RITM, 2021): each click lies
in the largest connected error, as far from its edge as possible, and says whether the place is
inside. The page's own code answers, in Chromium. A box is that of the true mask, each side off by
up to 5% of its length, and counts as one interaction.

Two ideal brushes, which never leave the largest error: one paints by straight strokes, each of 0.6
times the widest place and as long as fits through its middle; the other by a stroke of any length
and shape, half as wide as the widest place. What that costs is its length, given in diameters of
the lesion (of a disk of its area); a click has none.

Without --run only the arms that need no model are counted.

Counted until Dice 0.9, at most 20 (a mask that does not reach it counts as 20). Writes a row per
image and arm, and prints means with 95% intervals (bootstrap over images).
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage, stats

from browsing import chromium
from dxseg.data.readers.images import read_image
from dxseg.data.readers.masks import read_mask
from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.dataset import Dataset
from dxseg.inference.model_folder import find_model_folder
from dxseg.inference.predictor import Predictor
from dxseg.server.app import WEB

Mask = NDArray[np.bool_]
LIMIT, AIM = 20, 0.9
BOX_ERROR = 0.05

_LOAD = """([width, height, gray, map]) => {
    const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    window.image = { width, height, gray: bytes(gray), map: bytes(map), bytes };
}"""
_PROPOSE = """async ([drawn, clicks, frame]) => {
    const { propose } = await import("./proposal.js");
    const { width, height, gray, map, bytes } = window.image;
    const mask = bytes(drawn);
    const picture = {
        gray: (x, y) => gray[y * width + x] / 255,
        map: (x, y) => map[Math.floor(y) * width + Math.floor(x)] / 255,
        drawn: (x, y) => mask[y * width + x],
    };
    const begun = performance.now();
    const { box, covered } = propose(picture, clicks, frame, { width, height });
    const time = performance.now() - begun;
    for (let row = 0; row < box.height; row++)
        mask.set(
            covered.subarray(row * box.width, (row + 1) * box.width),
            (box.y + row) * width + box.x,
        );
    return [btoa(Array.from(mask, (one) => String.fromCharCode(one)).join("")), time];
}"""


@dataclass(frozen=True)
class Case:
    """An image with its true mask, and the model's prediction where there is a model."""

    case_id: str
    gray: NDArray[np.uint8]
    truth: Mask
    probabilities: NDArray[np.uint8] | None = None
    predicted: Mask | None = None


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder of a dataset")
    parser.add_argument("--splits", type=Path, required=True, help="table of `dxseg split`")
    parser.add_argument("--split", default="test", help="cases of this split are used")
    parser.add_argument("--run", type=Path, help="folder of a run that was trained on it")
    parser.add_argument("--images", type=int, default=60, help="lesion images, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("clicks.csv"))
    args = parser.parse_args(arguments)
    rng = np.random.default_rng(args.seed)
    with chromium() as browser:
        page = browser.new_page()
        page.route("**/*", _serve)
        page.goto("http://page.invalid/pixels.js")
        rows = [
            {"case_id": case.case_id, "arm": arm, **measured}
            for case in _cases(args, rng)
            for arm, measured in _arms(page, case, rng)
        ]
    table = pd.DataFrame(rows)
    table.to_csv(args.out, index=False)
    print(summary(table).to_string(index=False))
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over images, with 95% intervals by bootstrap."""
    found = []
    for arm, rows in table.groupby("arm", sort=False):
        counts = rows["interactions"].to_numpy(float)
        low, high = stats.bootstrap((counts,), np.mean, rng=0).confidence_interval
        found.append(
            {
                "arm": arm,
                "images": len(rows),
                "start": round(rows["start"].mean(), 3),
                "mean": round(counts.mean(), 2),
                "low": round(low, 2),
                "high": round(high, 2),
                "median": np.median(counts),
                "diameters": round(rows["diameters"].mean(), 1),
                "reached": round((rows["dice"] >= AIM).mean(), 3),
                "ms_median": round(rows["ms"].median(), 1),
                "ms_longest": round(rows["ms_longest"].max(), 1),
            }
        )
    return pd.DataFrame(found)


def _serve(route: Any) -> None:
    name = route.request.url.rpartition("/")[2]
    route.fulfill(path=WEB / name, content_type="text/javascript" if name else "text/html")


def _cases(args: argparse.Namespace, rng: np.random.Generator) -> Iterator[Case]:
    dataset = Dataset.load(args.dataset)
    predictor = args.run and Predictor.from_folder(find_model_folder(args.run))
    splits = read_splits(args.splits, dataset)["split"]
    cases = dataset.cases[dataset.cases["mask"].ne("") & splits.eq(args.split).to_numpy()]
    left = args.images
    for at in rng.permutation(len(cases)):
        row = cases.iloc[at]
        mask = dataset.mask_path(row)
        assert mask is not None, "the table has one"
        truth = read_mask(mask, len(dataset.spec.mask_classes)) > 0
        if not truth.any():
            continue
        if not left:
            return
        left -= 1
        image = read_image(dataset.image_path(row))
        gray = np.rint(image.mean(axis=2)).astype(np.uint8)
        if predictor is None:
            yield Case(row["case_id"], gray, truth)
            continue
        [found] = predictor.predict([image])
        levels = np.rint(found.probabilities.max(axis=0) * 255).astype(np.uint8)
        yield Case(row["case_id"], gray, truth, levels, found.mask > 0)


def _arms(page: Any, case: Case, rng: np.random.Generator) -> Iterator[tuple[str, dict[str, Any]]]:
    empty = np.zeros_like(case.truth)
    nothing = np.zeros_like(case.gray)
    frame = _box(case.truth, rng)
    arms = [
        ("clicks, no model", empty, nothing, None),
        ("box, then clicks, no model", empty, nothing, frame),
    ]
    starts = [("no model", empty)]
    if case.predicted is not None:
        starts.append(("model's mask first", case.predicted))
        arms += [
            ("clicks, model's mask first", case.predicted, case.probabilities, None),
            ("box, then clicks, model's map", empty, case.probabilities, frame),
        ]
    for name, start in starts:
        yield f"straight strokes, {name}", _count(_straight_stroke, start, case.truth)
        yield f"strokes of any shape, {name}", _count(_free_stroke, start, case.truth)
    for arm, start, probabilities, box in arms:
        height, width = case.truth.shape
        page.evaluate(_LOAD, [width, height, _text(case.gray), _text(probabilities)])
        yield arm, _count(_Clicks(page, box), start, case.truth)


def _count(
    interact: Callable[[Mask, Mask], tuple[Mask, float, float]], mask: Mask, truth: Mask
) -> dict[str, Any]:
    """Interact until the aim is reached."""
    start, length = dice(mask, truth), 0.0
    times: list[float] = []
    while dice(mask, truth) < AIM and len(times) < LIMIT:
        mask, time, drawn = interact(mask, truth)
        times.append(time)
        length += drawn
    reached = dice(mask, truth)
    return {
        "start": start,
        "interactions": len(times) if reached >= AIM else LIMIT,
        "dice": reached,
        "diameters": length / np.sqrt(4 * truth.sum() / np.pi),
        "ms": float(np.median(times)) if times else np.nan,
        "ms_longest": max(times, default=np.nan),
    }


class _Clicks:
    """Clicks, the first one a box where there is one; answered by the page's code."""

    def __init__(self, page: Any, box: dict[str, float] | None) -> None:
        self.page, self.box = page, box
        self.clicks: list[dict[str, Any]] = []

    def __call__(self, mask: Mask, truth: Mask) -> tuple[Mask, float, float]:
        frame, self.box = self.box, None
        if frame is None:
            error, inside = largest_error(mask, truth)
            _, (row, column) = _middle(error)
            self.clicks.append({"x": column + 0.5, "y": row + 0.5, "inside": inside})
        text, time = self.page.evaluate(_PROPOSE, [_text(mask), self.clicks, frame])
        found = np.frombuffer(base64.b64decode(text), np.uint8).reshape(mask.shape) > 0
        return found, time, 0.0


def _straight_stroke(mask: Mask, truth: Mask) -> tuple[Mask, float, float]:
    """Paint or erase along the longest straight line through the middle of the largest error."""
    error, inside = largest_error(mask, truth)
    depth, middle = _middle(error)
    radius = max(0.6 * depth.max(), 0.5)
    lines = [_line(depth >= radius, middle, angle) for angle in np.linspace(0, np.pi, 36, False)]
    line = max(lines, key=len)
    drawn = np.zeros_like(error)
    drawn[tuple(np.transpose(line))] = True
    painted = (ndimage.distance_transform_edt(~drawn) <= radius) & error
    return _painted(mask, painted, inside), 0.0, float(len(line))


def _free_stroke(mask: Mask, truth: Mask) -> tuple[Mask, float, float]:
    """Paint or erase all that a brush reaches inside the largest error."""
    error, inside = largest_error(mask, truth)
    depth, _ = _middle(error)
    radius = max(depth.max() / 2, 0.5)
    painted = (ndimage.distance_transform_edt(depth < radius) < radius) & error
    return _painted(mask, painted, inside), 0.0, float(painted.sum() / (2 * radius))


def _painted(mask: Mask, painted: Mask, inside: bool) -> Mask:
    return (mask | painted) if inside else (mask & ~painted)


def _middle(error: Mask) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """How deep each pixel lies in an error, and the deepest one."""
    depth = ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return depth, (int(row), int(column))


def _line(free: Mask, middle: tuple[int, int], angle: float) -> list[tuple[int, int]]:
    """Pixels of a straight line through a place, as far as it is free on both sides."""
    found = [middle]
    for sign in (1, -1):
        for step in range(1, max(free.shape)):
            row = round(middle[0] + sign * step * np.sin(angle))
            column = round(middle[1] + sign * step * np.cos(angle))
            within = 0 <= row < free.shape[0] and 0 <= column < free.shape[1]
            if not within or not free[row, column]:
                break
            found.append((row, column))
    return found


def largest_error(mask: Mask, truth: Mask) -> tuple[Mask, bool]:
    """The largest connected error, and whether it lies inside the truth."""
    found = []
    for inside, error in ((True, truth & ~mask), (False, mask & ~truth)):
        numbers, count = ndimage.label(error)
        if count:
            sizes = np.bincount(numbers.ravel())[1:]
            found.append((sizes.max(), numbers == sizes.argmax() + 1, inside))
    _, error, inside = max(found, key=lambda one: one[0])
    return error, inside


def dice(mask: Mask, truth: Mask) -> float:
    """Dice of two masks."""
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def _box(truth: Mask, rng: np.random.Generator) -> dict[str, float]:
    rows, columns = (np.flatnonzero(truth.any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    off = rng.uniform(-BOX_ERROR, BOX_ERROR, 4)
    top, bottom = top + off[0] * (bottom - top), bottom + off[1] * (bottom - top)
    left, right = left + off[2] * (right - left), right + off[3] * (right - left)
    return {
        "x": float(left),
        "y": float(top),
        "width": float(right - left),
        "height": float(bottom - top),
    }


def _text(array: NDArray[Any]) -> str:
    return base64.b64encode(array.astype(np.uint8).tobytes()).decode("ascii")


if __name__ == "__main__":
    main()
