"""`check.html`: the findings with thumbnails of some cases."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dxseg.data.readers.images import read_image
from dxseg.data.readers.slicing import shown_slice
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.inference.files.overlay import display_rgb, render_overlay
from dxseg.io.atomic import write_text_atomic
from dxseg.quality.findings import CheckReport, Finding
from dxseg.reports.page import png_uri, render

_SIDE = 144
_PICTURES = 6
_GROUPS = 3


def write_page(report: CheckReport, dataset: Dataset, path: Path) -> None:
    """Write the page of a report.

    Args:
        report: The report.
        dataset: The dataset with its images and masks.
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
        "statistics": report.statistics.rows(),
    }
    write_text_atomic(path, render("quality/check.html.jinja", context))


class _Gallery:
    """Renders each case once, even if several findings list it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.position = {name: row for row, name in enumerate(dataset.cases["case_id"])}
        self.drawn: dict[str, str] = {}

    def rows(self, finding: Finding) -> list[list[dict[str, str]]]:
        """Thumbnails of a few cases; one row per group if there are groups."""
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
    image = shown_slice(read_image(dataset.image_path(row)), dataset.spec.slicing)
    colors = display_rgb(image)
    try:
        truth = dataset.read_mask(row)
        if truth is not None:
            colors = render_overlay(image, np.zeros_like(truth), truth=truth)
    except (DxsegError, OSError):
        # The image alone still illustrates the finding.
        pass
    picture = Image.fromarray(colors)
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
