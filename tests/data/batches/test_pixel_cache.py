"""Cached pixels: right, keyed by content, all or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg.data.batches import pixel_cache
from dxseg.data.batches.pixel_cache import cached_images, cached_masks
from dxseg.data.preprocessing import fit_image, fit_mask
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.errors import DxsegError


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Four 40x30 images; the last has no mask file."""
    generator = np.random.default_rng(0)
    root = tmp_path / "data"
    for index in range(4):
        save(root / f"images/{index}.png", generator.integers(0, 256, (40, 30)).astype(np.uint8))
        save(root / f"masks/{index}.png", (generator.random((40, 30)) > 0.5).astype(np.uint8) * 255)
    table = pd.DataFrame(
        {
            "case_id": [f"c{i}" for i in range(4)],
            "image": [f"images/{i}.png" for i in range(4)],
            "mask": [f"masks/{i}.png" if i < 3 else "" for i in range(4)],
            "label": ["sick"] * 3 + ["normal"],
        }
    )
    spec = DatasetSpec(name="t", labels=["normal", "sick"], lesion_free=["normal"])
    return Dataset.create(root, spec, table)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def decoded(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def arrays(folder: Path) -> list[Path]:
    """The finished caches."""
    return sorted(folder.glob("[!.]*"))


def refuse(*_: Any) -> np.ndarray:
    raise AssertionError("decoded again")


def test_images_are_those_of_the_files_in_the_order_of_the_rows(
    dataset: Dataset, folder: Path
) -> None:
    progress: list[tuple[int, int]] = []
    rows = dataset.cases.iloc[[2, 0, 3]]
    images = cached_images(dataset, rows, 32, folder, lambda *step: progress.append(step))
    assert images.shape == (3, 32, 32, 1)
    assert images.dtype == np.uint8
    for image, index in zip(images, [2, 0, 3], strict=True):
        pixels = decoded(dataset.root / f"images/{index}.png")[..., None]
        assert np.array_equal(image, fit_image(pixels, 32)[0])
    assert progress == [(1, 3), (2, 3), (3, 3)]


def test_masks_are_those_of_the_files_and_empty_without_one(dataset: Dataset, folder: Path) -> None:
    masks = cached_masks(dataset, dataset.cases, 32, folder)
    assert masks.shape == (4, 32, 32)
    for index in range(3):
        mask = (decoded(dataset.root / f"masks/{index}.png") > 0).astype(np.uint8)
        assert np.array_equal(masks[index], fit_mask(mask, 32, 1))
    assert not masks[3].any()


def test_the_arrays_are_read_only_memory_maps(dataset: Dataset, folder: Path) -> None:
    images = cached_images(dataset, dataset.cases, 32, folder)
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_the_same_content_is_not_decoded_again(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = cached_images(dataset, dataset.cases, 32, folder)
    masks = cached_masks(dataset, dataset.cases, 32, folder)
    monkeypatch.setattr(pixel_cache, "read_image", refuse)
    monkeypatch.setattr(pixel_cache, "read_mask", refuse)
    assert np.array_equal(cached_images(dataset, dataset.cases, 32, folder), images)
    assert np.array_equal(cached_masks(dataset, dataset.cases, 32, folder), masks)


def test_a_changed_file_a_size_or_an_order_makes_another_cache(
    dataset: Dataset, folder: Path
) -> None:
    cached_images(dataset, dataset.cases, 32, folder)
    cached_images(dataset, dataset.cases, 48, folder)
    cached_images(dataset, dataset.cases.iloc[::-1], 32, folder)
    save(dataset.root / "images/1.png", np.full((40, 30), 9, np.uint8))
    images = cached_images(dataset, dataset.cases, 32, folder)
    assert (images[1][:, :24] == 9).all()
    assert len(arrays(folder)) == 4


def test_a_file_of_the_same_size_and_time_but_other_pixels_is_noticed(
    dataset: Dataset, folder: Path
) -> None:
    import os

    path = dataset.root / "masks/0.png"
    before, stat = cached_masks(dataset, dataset.cases, 32, folder), path.stat()
    save(path, 255 - decoded(path))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not np.array_equal(cached_masks(dataset, dataset.cases, 32, folder)[0], before[0])


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError, DxsegError])
def test_an_interrupted_writing_leaves_no_cache(
    dataset: Dataset,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    interruption: type[BaseException],
) -> None:
    read, calls = pixel_cache.read_image, []

    def stop_at_third(path: Path) -> np.ndarray:
        calls.append(path)
        if len(calls) == 3:
            raise interruption
        return read(path)

    monkeypatch.setattr(pixel_cache, "read_image", stop_at_third)
    with pytest.raises(interruption):
        cached_images(dataset, dataset.cases, 32, folder)
    assert arrays(folder) == []
    monkeypatch.undo()
    steps: list[int] = []
    images = cached_images(dataset, dataset.cases, 32, folder, lambda done, _: steps.append(done))
    assert steps == [2, 3, 4], "what was decoded is decoded again"
    for index in range(4):
        pixels = decoded(dataset.root / f"images/{index}.png")[..., None]
        assert np.array_equal(images[index], fit_image(pixels, 32)[0])
    assert not list(folder.glob(".*.sqlite")), "decoded pixels are kept twice"


def test_a_damaged_cache_is_made_again(dataset: Dataset, folder: Path) -> None:
    whole = np.array(cached_images(dataset, dataset.cases, 32, folder))
    (path,) = arrays(folder)
    for damaged in (path.read_bytes()[:-100], b"", b"not an array" * 50):
        path.write_bytes(damaged)
        assert np.array_equal(cached_images(dataset, dataset.cases, 32, folder), whole)


def test_eight_and_sixteen_bit_are_not_mixed(dataset: Dataset, folder: Path) -> None:
    save(dataset.root / "images/2.png", np.full((40, 30), 3000, np.uint16))
    with pytest.raises(DxsegError, match=r"2\.png: uint16 where .* uint8"):
        cached_images(dataset, dataset.cases, 32, folder)
    assert arrays(folder) == []


def test_sixteen_bit_stays_sixteen_bit(dataset: Dataset, folder: Path) -> None:
    for index in range(4):
        save(dataset.root / f"images/{index}.png", np.full((40, 30), 1000 + index, np.uint16))
    images = cached_images(dataset, dataset.cases, 32, folder)
    assert images.dtype == np.uint16
    assert [int(image.max()) for image in images] == [1000, 1001, 1002, 1003]


def test_images_of_different_sizes_share_a_cache(dataset: Dataset, folder: Path) -> None:
    save(dataset.root / "images/1.png", np.full((10, 90), 50, np.uint8))
    images = cached_images(dataset, dataset.cases, 32, folder)
    assert images[1][:4].min() == 50
    assert not images[1][4:].any()


def test_no_cases_is_said(dataset: Dataset, folder: Path) -> None:
    with pytest.raises(DxsegError, match="no cases"):
        cached_images(dataset, dataset.cases.iloc[:0], 32, folder)


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n but no more"])
def test_an_unreadable_image_is_named(dataset: Dataset, folder: Path, damage: bytes) -> None:
    (dataset.root / "images/2.png").write_bytes(damage)
    with pytest.raises(DxsegError, match=r"2\.png"):
        cached_images(dataset, dataset.cases, 32, folder)


def test_two_jobs_that_want_the_same_make_it_once(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Thread

    read, calls = pixel_cache.read_image, []
    monkeypatch.setattr(pixel_cache, "read_image", lambda path: calls.append(path) or read(path))
    results: list[np.ndarray] = []

    def job() -> None:
        results.append(cached_images(dataset, dataset.cases, 32, folder))

    jobs = [Thread(target=job) for _ in range(3)]
    for one in jobs:
        one.start()
    for one in jobs:
        one.join()
    assert len(calls) == 4
    assert len(results) == 3
    assert all(np.array_equal(images, results[0]) for images in results)


@pytest.mark.slow  # each process imports torch
def test_processes_change_nothing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, count = tmp_path / "many", 60
    generator = np.random.default_rng(1)
    for index in range(count):
        save(root / f"{index}.png", generator.integers(0, 256, (32, 32)).astype(np.uint8))
    table = pd.DataFrame(
        {"case_id": map(str, range(count)), "image": [f"{i}.png" for i in range(count)]}
    )
    many = Dataset.create(root, DatasetSpec(name="m", labels=["a"]), table)
    monkeypatch.setattr(pixel_cache, "MIN_IMAGES_PER_PROCESS", 20)
    monkeypatch.setattr(pixel_cache, "MIN_FILES_PER_PROCESS", 20)
    monkeypatch.setattr(
        pixel_cache, "read_image", refuse
    )  # in this process; others import their own
    images = cached_images(many, many.cases, 32, folder)
    expected = np.stack([decoded(root / f"{index}.png")[..., None] for index in range(count)])
    assert np.array_equal(images, expected)
