"""Fixtures shared by the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def _real_data(name: str) -> Path:
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"real data absent: {name} is expected at ../shared/data/{name}")
    return folder


@pytest.fixture(scope="session")
def busi_root() -> Path:
    """The BUSI folder (classes as sub-folders), read-only."""
    return _real_data("busi")


@pytest.fixture(scope="session")
def lidc_root() -> Path:
    """The LIDC windows with their cases.csv, read-only."""
    return _real_data("lidc")
