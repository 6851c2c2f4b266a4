"""Images in shards: those of the memory map, within a bound of local space, all or nothing."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dxseg.data import pixel_cache, shard_writer, shards
from dxseg.data.batches.pixel_cache import cached_images
from dxseg.data.batches.shard_writer import sharded_images
from dxseg.data.batches.shards import Manifest, ShardedImages
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.errors import DxsegError, UsageError

SIZE, ROWS, COUNT = 32, 3, 11
NAMES = [f"{number:05}.npy" for number in range(4)]
IMAGE = SIZE * SIZE
ONE = ROWS * IMAGE + 1024
"""What one shard may take."""


def save(root: Path, index: int, pixels: np.ndarray) -> None:
    root.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(root / f"{index}.png")


def make_dataset(root: Path, bits: type[np.unsignedinteger] = np.uint8) -> Dataset:
    generator = np.random.default_rng(0)
    for index in range(COUNT):
        save(root, index, generator.integers(0, np.iinfo(bits).max, (40, 30)).astype(bits))
    table = pd.DataFrame(
        {"case_id": map(str, range(COUNT)), "image": [f"{i}.png" for i in range(COUNT)]}
    )
    return Dataset.create(root, DatasetSpec(name="t", labels=["a"]), table)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "data")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three images a shard, the last has two."""
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", ROWS * IMAGE)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "archive")


def make(
    dataset: Dataset, address: str, folder: Path, capacity: int = 2, **options: Any
) -> ShardedImages:
    return sharded_images(dataset, dataset.cases, SIZE, address, folder, capacity * ONE, **options)


def taken(folder: Path) -> int:
    """Bytes of all files, hidden ones too; some may be dropped meanwhile."""
    sizes = 0
    for path in folder.glob("*"):
        try:
            sizes += path.stat().st_size
        except FileNotFoundError:
            continue
    return sizes


def kept(images: ShardedImages) -> list[str]:
    return sorted(path.name for path in images.folder.iterdir())


def read_all(images: ShardedImages) -> np.ndarray:
    return np.stack([images[row] for row in range(COUNT)])


def address_in_memory() -> str:
    return f"memory://{uuid4().hex}/shards"


@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
@pytest.mark.parametrize("where", [lambda: "archive", address_in_memory])
def test_rows_are_those_of_the_memory_map(
    bits: type[np.unsignedinteger],
    where: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = make_dataset(tmp_path / "data", bits)
    expected = cached_images(dataset, dataset.cases, SIZE, tmp_path / "cache")
    images = make(dataset, where(), tmp_path / "cache", capacity=4)
    assert (images.shape, images.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(read_all(images), expected)
    assert images.url.endswith(Path(expected.filename).stem), "the same key"
    for row in (-1, COUNT):
        with pytest.raises(IndexError, match=f"row {row} of 11"):
            images[row]


def test_nothing_is_decoded_or_written_again(
    dataset: Dataset, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[int, int]] = []
    images = make(dataset, address, tmp_path, progress=lambda *step: steps.append(step))
    assert steps == [(3, 11), (6, 11), (9, 11), (11, 11)]
    monkeypatch.setattr(pixel_cache, "read_image", None)
    monkeypatch.setattr(shard_writer, "_put", None)
    again = make(dataset, address, tmp_path, progress=lambda *step: steps.append(step))
    assert again == images
    assert len(steps) == 4


@given(rows=st.lists(st.integers(0, COUNT - 1), max_size=15), capacity=st.integers(2, 4))
@settings(max_examples=15)
def test_local_space_stays_within_its_bound(
    archive: tuple[ShardedImages, np.ndarray], rows: list[int], capacity: int
) -> None:
    """At its height too: when a shard was fetched and is not yet in its place."""
    whole, expected = archive
    heights: list[int] = []
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        images = ShardedImages(whole.url, whole.manifest, Path(name) / "kept", capacity * ONE)
        images.folder.mkdir()
        (images.folder / ".00003.0123456789ab.npy").write_bytes(b"half" * ONE)  # of a killed one
        digest = shards.sha256_file

        def noted(path: Path) -> str:
            heights.append(taken(images.folder))
            return digest(path)

        patch.setattr(shards, "sha256_file", noted)
        for row in rows:
            assert np.array_equal(images[row], expected[row])
        assert max(heights, default=0) <= images.room
        if rows:
            assert len(kept(images)) >= min(len({row // ROWS for row in rows}), capacity)


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ShardedImages, np.ndarray]:
    """Shards that are only read, and what is in them."""
    folder = tmp_path_factory.mktemp("archive")
    dataset = make_dataset(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writer, "SHARD_BYTES", ROWS * IMAGE)
        images = make(dataset, str(folder / "archive"), folder)
    return images, np.array(cached_images(dataset, dataset.cases, SIZE, folder))


def test_what_was_used_least_lately_is_dropped(
    dataset: Dataset, address: str, tmp_path: Path
) -> None:
    images = make(dataset, address, tmp_path)
    for row in (0, 3, 1, 6):
        images[row]
    assert kept(images) == [NAMES[0], NAMES[2]]


def test_processes_share_what_they_fetch_and_its_bound(
    archive: tuple[ShardedImages, np.ndarray], tmp_path: Path
) -> None:
    whole, expected = archive
    images = ShardedImages(whole.url, whole.manifest, tmp_path / "kept", 2 * ONE)
    orders = [np.random.default_rng(seed).integers(0, COUNT, 60).tolist() for seed in (1, 2)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [[pool.submit(images.__getitem__, row) for row in order] for order in orders]
        highest = 0
        while not all(job.done() for order in jobs for job in order):
            highest = max(highest, taken(images.folder))
        for order, results in zip(orders, jobs, strict=True):
            found = [job.result() for job in results]
            assert np.array_equal(found, expected[order])
        assert 0 < highest <= images.room
        fetched = {int(name[:5]) for name in kept(images)}
        alone = ShardedImages(str(tmp_path / "gone"), whole.manifest, images.folder, images.room)
        for number in fetched:  # from local space, by another process than the one that fetched
            row = number * ROWS
            assert np.array_equal(pool.submit(alone.__getitem__, row).result(), expected[row])


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (damage, "damaged, its content is not what"),
        (Path.unlink, "not found, though manifest.json"),
    ],
)
def test_a_shard_that_is_damaged_or_gone_is_named_and_can_be_made_again(
    harm: Callable[[Path], None],
    told: str,
    dataset: Dataset,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = make(dataset, address, tmp_path)
    expected = read_all(images)
    shutil.rmtree(images.folder)
    broken = Path(images.url) / NAMES[1]
    harm(broken)
    with pytest.raises(DxsegError, match=rf"{NAMES[1]}: {told}.*same command"):
        images[4]
    assert kept(images) == []
    assert np.array_equal(images[0], expected[0]), "the others can be read"
    broken.unlink(missing_ok=True)  # as the message says
    decoded: list[Path] = []
    read = pixel_cache.read_image
    monkeypatch.setattr(pixel_cache, "read_image", lambda path: decoded.append(path) or read(path))
    assert np.array_equal(read_all(make(dataset, address, tmp_path)), expected)
    assert [path.stem for path in decoded] == ["3", "4", "5"]


class OwnError(Exception):
    """As file systems of fsspec have them."""


@pytest.mark.parametrize(
    ("method", "named"),
    [("cat_file", "images-"), ("ls", "images-"), ("pipe_file", NAMES[0]), ("get_file", NAMES[0])],
)
@pytest.mark.parametrize(
    ("error", "reason"),
    [(PermissionError(13, "Permission denied"), "Permission denied"), (OwnError(), "OwnError")],
)
def test_a_place_that_cannot_be_reached_is_told(
    method: str,
    named: str,
    error: Exception,
    reason: str,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(MemoryFileSystem, method, fail)
    with pytest.raises(DxsegError, match=rf"{named}.*: cannot be reached \({reason}\)"):
        make(dataset, address_in_memory(), tmp_path)[0]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError, DxsegError])
def test_decoding_that_is_interrupted_goes_on_with_the_shards_that_are_not_finished(
    interruption: type[BaseException],
    dataset: Dataset,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, calls = pixel_cache.read_image, []

    def stop_in_the_third_shard(path: Path) -> np.ndarray:
        calls.append(path.stem)
        if path.stem == "7":
            raise interruption
        return read(path)

    monkeypatch.setattr(pixel_cache, "read_image", stop_in_the_third_shard)
    with pytest.raises(interruption):
        make(dataset, address, tmp_path)
    (folder,) = Path(address).iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [*NAMES[:2], "manifest.json"]
    calls.clear()
    monkeypatch.setattr(
        pixel_cache, "read_image", lambda path: calls.append(path.stem) or read(path)
    )
    steps: list[int] = []
    images = make(dataset, address, tmp_path, progress=lambda done, _: steps.append(done))
    assert calls == ["6", "7", "8", "9", "10"]
    assert steps == [6, 9, 11]
    expected = cached_images(dataset, dataset.cases, SIZE, tmp_path)
    assert np.array_equal(read_all(images), expected)


def test_what_was_written_is_not_taken_for_finished_before_the_manifest_says_so(
    dataset: Dataset, address: str, tmp_path: Path
) -> None:
    images = make(dataset, address, tmp_path)
    path = Path(images.url) / "manifest.json"
    manifest = Manifest.model_validate_json(path.read_bytes())
    del manifest.shards[NAMES[2]]
    path.write_text(manifest.model_dump_json())
    damage(Path(images.url) / NAMES[2])
    assert np.array_equal(read_all(make(dataset, address, tmp_path)), read_all(images))


@pytest.mark.parametrize("content", ["", "[]", '{"shape": [11, 32, 32, 1]}'])
def test_a_damaged_manifest_is_told(
    content: str, dataset: Dataset, address: str, tmp_path: Path
) -> None:
    images = make(dataset, address, tmp_path)
    (Path(images.url) / "manifest.json").write_text(content)
    with pytest.raises(DxsegError, match=r"manifest\.json: not a manifest of shards .*remove it"):
        make(dataset, address, tmp_path)


def test_eight_and_sixteen_bit_are_not_mixed(
    dataset: Dataset, address: str, tmp_path: Path
) -> None:
    save(dataset.root, 7, np.full((40, 30), 3000, np.uint16))
    with pytest.raises(DxsegError, match=r"7\.png: uint16 where .* uint8"):
        make(dataset, address, tmp_path)


def test_a_bound_below_two_shards_is_refused_before_anything_is_decoded(
    dataset: Dataset, address: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"shards_local_gib .*less than two.*allow 0\.001 or more"):
        make(dataset, address, tmp_path, capacity=1)
    assert not Path(address).exists()


def test_an_address_that_fsspec_does_not_know_is_told(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.shards nowhere://x/images.*Protocol not known"):
        make(dataset, "nowhere://x", tmp_path)


def test_no_cases_is_said(dataset: Dataset, address: str, tmp_path: Path) -> None:
    with pytest.raises(DxsegError, match="no cases"):
        sharded_images(dataset, dataset.cases.iloc[:0], SIZE, address, tmp_path, 2 * ONE)


def test_shards_and_local_space_may_lie_in_one_folder(dataset: Dataset, tmp_path: Path) -> None:
    images = make(dataset, str(tmp_path), tmp_path)
    expected = cached_images(dataset, dataset.cases, SIZE, tmp_path)
    assert np.array_equal(read_all(images), expected)
    assert len(kept(images)) == 2
    assert np.array_equal(read_all(images), expected), "what is dropped is a copy"
