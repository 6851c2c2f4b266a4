"""Interactions per mask on the page: clicks and boxes against a brush, by a simulated user.

    PYTHONPATH=tests python benchmarks/clicks.py runs/busi/dataset runs/unet --images 60

The user of the literature on interactive segmentation (Sofiiuk et al., RITM, 2021): each click lies
in the largest connected error, as far from its edge as possible, and says whether the place is
inside. The page's own code answers, in Chromium. The brush is an ideal one: its width is half of
the widest place of the largest error, and one stroke paints all that a disk of this width reaches
inside that error without leaving it. A box is that of the true mask, each side off by up to 5% of
its length, and counts as one interaction.

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
    """An image with its true mask and the model's prediction."""

    case_id: str
    gray: NDArray[np.uint8]
    truth: Mask
    probabilities: NDArray[np.uint8]
    predicted: Mask


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder of a dataset")
    parser.add_argument("run", type=Path, help="folder of a run that was trained on it")
    parser.add_argument("--split", default="test", help="cases of this split are used")
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
            for case in _cases(args.dataset, args.run, args.split, args.images, rng)
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
                "reached": round((rows["dice"] >= AIM).mean(), 3),
                "ms_median": round(rows["ms"].median(), 1),
                "ms_longest": round(rows["ms_longest"].max(), 1),
            }
        )
    return pd.DataFrame(found)


def _serve(route: Any) -> None:
    name = route.request.url.rpartition("/")[2]
    route.fulfill(path=WEB / name, content_type="text/javascript" if name else "text/html")


def _cases(
    root: Path, run: Path, split: str, images: int, rng: np.random.Generator
) -> Iterator[Case]:
    dataset, predictor = Dataset.load(root), Predictor.from_folder(find_model_folder(run))
    splits = read_splits(run / "splits.csv").set_index("case_id")["split"]
    cases = dataset.cases[
        dataset.cases["mask"].ne("") & dataset.cases["case_id"].map(splits).eq(split)
    ]
    for at in rng.permutation(len(cases))[:images]:
        row = cases.iloc[at]
        path, mask = dataset.image_path(row), dataset.mask_path(row)
        assert mask is not None, "the table has one"
        truth = read_mask(mask, len(dataset.spec.mask_classes)) > 0
        if not truth.any():
            continue
        image = read_image(path)
        [found] = predictor.predict([image])
        yield Case(
            row["case_id"],
            np.rint(image.mean(axis=2)).astype(np.uint8),
            truth,
            np.rint(found.probabilities.max(axis=0) * 255).astype(np.uint8),
            found.mask > 0,
        )


def _arms(page: Any, case: Case, rng: np.random.Generator) -> Iterator[tuple[str, dict[str, Any]]]:
    empty = np.zeros_like(case.truth)
    nothing = np.zeros_like(case.probabilities)
    frame = _box(case.truth, rng)
    for arm, start, probabilities, box in (
        ("clicks, model's mask first", case.predicted, case.probabilities, None),
        ("box, then clicks, model's map", empty, case.probabilities, frame),
        ("clicks, no model", empty, nothing, None),
        ("box, then clicks, no model", empty, nothing, frame),
    ):
        height, width = case.truth.shape
        page.evaluate(_LOAD, [width, height, _text(case.gray), _text(probabilities)])
        yield arm, _count(_Clicks(page, box), start, case.truth)
    yield "brush, model's mask first", _count(_stroke, case.predicted, case.truth)
    yield "brush, no model", _count(_stroke, empty, case.truth)


def _count(
    interact: Callable[[Mask, Mask], tuple[Mask, float]], mask: Mask, truth: Mask
) -> dict[str, Any]:
    """Interact until the aim is reached."""
    start, times = dice(mask, truth), []
    while dice(mask, truth) < AIM and len(times) < LIMIT:
        mask, time = interact(mask, truth)
        times.append(time)
    reached = dice(mask, truth)
    return {
        "start": start,
        "interactions": len(times) if reached >= AIM else LIMIT,
        "dice": reached,
        "ms": float(np.median(times)) if times else np.nan,
        "ms_longest": max(times, default=np.nan),
    }


class _Clicks:
    """Clicks, the first one a box where there is one; answered by the page's code."""

    def __init__(self, page: Any, box: dict[str, float] | None) -> None:
        self.page, self.box = page, box
        self.clicks: list[dict[str, Any]] = []

    def __call__(self, mask: Mask, truth: Mask) -> tuple[Mask, float]:
        frame, self.box = self.box, None
        if frame is None:
            error, inside = largest_error(mask, truth)
            depth = ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
            row, column = np.unravel_index(depth.argmax(), depth.shape)
            self.clicks.append({"x": float(column) + 0.5, "y": float(row) + 0.5, "inside": inside})
        text, time = self.page.evaluate(_PROPOSE, [_text(mask), self.clicks, frame])
        found = np.frombuffer(base64.b64decode(text), np.uint8).reshape(mask.shape) > 0
        return found, time


def _stroke(mask: Mask, truth: Mask) -> tuple[Mask, float]:
    """Paint or erase what a brush reaches inside the largest error."""
    error, inside = largest_error(mask, truth)
    depth = ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
    radius = max(depth.max() / 2, 0.5)
    reached = ndimage.distance_transform_edt(depth < radius) < radius
    painted = reached & error
    return (mask | painted) if inside else (mask & ~painted), 0.0


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
