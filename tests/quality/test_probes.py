"""Shortcut probes: planted shortcuts are found by the probe that sees them, and by no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Change = Callable[[NDArray[np.uint8], bool], NDArray[np.uint8]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dxseg.quality.probes._RESAMPLES", 20)
    monkeypatch.setattr("dxseg.quality.probes._TREES", 15)


def larger(pixels: NDArray[np.uint8], malignant: bool) -> NDArray[np.uint8]:
    return pixels if malignant else pixels[:36]


def marked(pixels: NDArray[np.uint8], malignant: bool) -> NDArray[np.uint8]:
    """Draw scanner text into a corner."""
    if malignant:
        pixels = pixels.copy()
        pixels[:3, :12] = 255
    return pixels


def brighter(pixels: NDArray[np.uint8], malignant: bool) -> NDArray[np.uint8]:
    """Brighten the middle, out of the border's sight."""
    pixels = pixels.copy()
    if malignant:
        pixels[10:30, 10:30] = pixels[10:30, 10:30] // 2 + 127
    return pixels


def plain(pixels: NDArray[np.uint8], malignant: bool) -> NDArray[np.uint8]:
    return pixels


def fill(folder: Any, change: Change, cases: int = 80) -> None:
    folder.table = folder.table.iloc[:0]
    folder.spec.update(labels=["benign", "malignant"], lesion_free=[])
    random = np.random.default_rng(0)
    for number in range(cases):
        malignant = bool(number % 2)
        pixels = (folder.scene(number) // 2 + random.integers(0, 60)).astype(np.uint8)
        folder.image(f"p{number}.png", change(pixels, malignant))
        folder.set(f"p{number}", label="malignant" if malignant else "benign")


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        (larger, {"image-size"}),
        (marked, {"border"}),
        (brighter, {"thumbnail"}),
        (plain, set()),
    ],
)
def test_each_probe_finds_its_shortcut(
    folder: Any, codes: Any, change: Change, warned: set[str]
) -> None:
    fill(folder, change)
    report = folder.check()
    probes = {probe.name: probe for probe in report.probes}
    assert list(probes) == ["image-size", "border", "thumbnail"]
    for name, probe in probes.items():
        assert (probe.cases, probe.group_count) == (80, 80)
        assert list(probe.labels) == ["benign"], "one of two exclusive labels is enough"
        assert probe.mean == probe.labels["benign"]
        assert 0 <= probe.mean.low <= probe.mean.auroc <= probe.mean.high <= 1
        if name in warned:
            assert probe.mean.auroc > 0.8
            assert probe.warned == ["mean", "benign"]
    high = {name for name, probe in probes.items() if probe.warned}
    # Text in a corner is seen in the thumbnail as well.
    assert warned <= high <= warned | ({"thumbnail"} if change is marked else set())
    assert ("shortcut" in codes(report)) == bool(warned)
    if warned:
        assert next(iter(warned)) in " ".join(codes(report)["shortcut"].details)


def test_what_tells_the_patient_apart_is_no_shortcut(folder: Any) -> None:
    """Each patient has a border of its own; only a fold that divides patients could use it."""
    fill(folder, plain, cases=0)
    random = np.random.default_rng(1)
    for patient in range(24):
        frame = random.integers(0, 255, (40, 40), np.uint8)
        for image in range(4):
            pixels = frame.copy()
            pixels[10:30, 10:30] = folder.scene(100 * patient + image)[10:30, 10:30]
            name = f"p{patient}_{image}"
            folder.image(f"{name}.png", pixels)
            folder.set(name, label=("benign", "malignant")[patient % 2], patient_id=str(patient))
    border = folder.check().probes[1]
    assert (border.cases, border.group_count) == (96, 24)
    assert border.warned == []


def test_too_few_groups_give_no_figure(folder: Any) -> None:
    fill(folder, marked, cases=18)
    for probe in folder.check().probes:
        assert (probe.mean, probe.labels, probe.warned) == (None, {}, [])


def test_several_labels_are_judged_one_against_the_rest(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One label of three is given away; the mean would hide it."""
    from dxseg.quality import probes

    monkeypatch.setattr(probes, "MAX_CASES", 90)
    fill(folder, larger, cases=60)
    folder.spec["labels"] = ["benign", "malignant", "cyst", "rare"]
    for number in range(60, 120):
        folder.image(f"p{number}.png", folder.scene(number))
        folder.set(f"p{number}", label="cyst")
    size = folder.check().probes[0]
    assert size.cases == 90
    assert list(size.labels) == ["benign", "malignant", "cyst"]
    assert "benign" in size.warned
    mean = np.mean([area.auroc for area in size.labels.values()])
    assert size.mean.auroc == pytest.approx(mean)
