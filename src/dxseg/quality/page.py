"""`check.html`: the findings with small pictures of some cases."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dxseg.data.readers.images import read_image
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.inference.files.overlay import display_rgb, render_overlay
from dxseg.io.atomic import write_text_atomic
from dxseg.quality.findings import CheckReport, Finding, Quantiles, Statistics
from dxseg.reports.page import png_uri, render

_SIDE = 144
_PICTURES = 6
_GROUPS = 3


def write_page(report: CheckReport, dataset: Dataset, path: Path) -> None:
    """Write the page of a report.

    Args:
        report: What was found.
        dataset: Where images and masks lie.
        path: The file, replaced atomically.
    """
    gallery = _Gallery(dataset)
    findings = [
        {"finding": finding, "rows": gallery.rows(finding)}
        for finding in report.findings
        if finding.code != "shortcut"
    ]
    context = {
        "title": f"dxseg check: {report.name}",
        "dataset": report.name,
        "report": report,
        "findings": findings,
        "shortcut": next((f for f in report.findings if f.code == "shortcut"), None),
        "statistics": describe_statistics(report.statistics),
    }
    write_text_atomic(path, render("quality/check.html.jinja", context))


def describe_statistics(statistics: Statistics) -> list[tuple[str, str]]:
    """Turn the fingerprint into rows of a table: what, and its value in words."""
    counts = ", ".join(f"{name or 'no label'} {n}" for name, n in statistics.labels.items())
    rows = [
        ("labels", counts),
        ("lesion-free by label", str(statistics.lesion_free)),
        ("patients named", str(statistics.patients)),
        ("mask files", f"{statistics.masks}, {statistics.lesion_masks} with a lesion"),
        ("channels", ", ".join(f"{key}: {n}" for key, n in statistics.channels.items())),
        ("bits", ", ".join(f"{key}: {n}" for key, n in statistics.bits.items())),
        ("distinct sizes", str(statistics.sizes)),
    ]
    spread = {
        "height (px)": statistics.height,
        "width (px)": statistics.width,
        "spacing, vertical": statistics.spacing_y,
        "spacing, horizontal": statistics.spacing_x,
        "lesion, share of the image": statistics.lesion_share,
        "mean intensity": statistics.intensity_mean,
        "deviation of intensity": statistics.intensity_deviation,
        "share of the lowest value": statistics.darkest_share,
        "share of the highest value": statistics.brightest_share,
    }
    return [*rows, *((name, _spread(five)) for name, five in spread.items() if five is not None)]


def _spread(five: Quantiles) -> str:
    return (
        f"median {five.median:.4g}, middle half {five.quarter:.4g} to {five.three_quarters:.4g}, "
        f"all {five.minimum:.4g} to {five.maximum:.4g}"
    )


class _Gallery:
    """Draws each case once, however many findings name it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.position = {name: row for row, name in enumerate(dataset.cases["case_id"])}
        self.drawn: dict[str, str] = {}

    def rows(self, finding: Finding) -> list[list[dict[str, str]]]:
        """Pictures of a few cases; a row for each group, where there are groups."""
        several = [group for group in finding.groups if len(group) > 1]
        lists = several[:_GROUPS] or [finding.case_ids]
        return [[self._picture(name) for name in islice(names, _PICTURES)] for names in lists]

    def _picture(self, case_id: str) -> dict[str, str]:
        row = self.dataset.cases.iloc[self.position[case_id]]
        if case_id not in self.drawn:
            try:
                self.drawn[case_id] = png_uri(_draw(self.dataset, row))
            except (DxsegError, OSError):
                self.drawn[case_id] = ""
        label = row["label"] or "no label"
        return {"case": case_id, "label": label, "source": self.drawn[case_id]}


def _draw(dataset: Dataset, row: Any) -> bytes:
    image = read_image(dataset.image_path(row))
    colours = display_rgb(image)
    try:
        path = dataset.mask_path(row)
        if path is not None:
            truth = read_mask(path, len(dataset.spec.mask_classes))
            colours = render_overlay(image, np.zeros_like(truth), truth=truth)
    except (DxsegError, OSError):
        # The image alone still shows what the finding is about.
        pass
    picture = Image.fromarray(colours)
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
