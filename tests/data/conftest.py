"""Volumes to import."""

from __future__ import annotations

from pathlib import Path

import pytest

from volume_phantom import TURNS, ct, save


@pytest.fixture
def lits(tmp_path: Path) -> Path:
    """Three volumes named as LiTS names them, each stored in its own order; the last is healthy."""
    for number, turn in enumerate((TURNS[0], TURNS[21], TURNS[38])):
        voxels, labels = ct(number, tumour=number < 2)
        save(tmp_path / f"lits/volume-{number}.nii.gz", voxels, turn)
        save(tmp_path / f"lits/segmentation-{number}.nii.gz", labels, TURNS[5 * number])
    return tmp_path / "lits"
