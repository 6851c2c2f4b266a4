"""Images and masks at addresses: below a listed root only, and read once, into the cache."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg.data.batches.pixel_cache import cached_images, cached_masks
from dxseg.data.readers.images import image_size, read_image
from dxseg.data.readers.masks import read_mask
from dxseg.data.splits.holdout import make_splits
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.spec import DatasetSpec
from dxseg.errors import DxsegError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 48, 40), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def archive() -> Iterator[Any]:
    """Six images and a mask, in fsspec's file system in memory."""
    files = fsspec.filesystem("memory")
    for number, pixels in enumerate(PIXELS):
        files.pipe(f"/archive/{number}.png", png(pixels))
    files.pipe("/archive/masks/0.png", png((PIXELS[0] > 127).astype(np.uint8) * 255))
    files.pipe("/secret/0.png", png(PIXELS[0]))
    yield files
    files.store.clear()


def table(**columns: Any) -> pd.DataFrame:
    names = ["memory://archive/0.png", *(f"{number}.png" for number in range(1, 6))]
    values = {
        "case_id": list("abcdef"),
        "image": names,
        "mask": ["masks/0.png", *[""] * 5],
        "label": ["ill", "well"] * 3,
        "patient_id": list("abcdef"),
    }
    return pd.DataFrame({**values, **columns})


SPEC = DatasetSpec(
    name="far", labels=["ill", "well"], lesion_free=["well"], roots=["memory://archive"]
)


def test_images_and_masks_are_read_from_addresses(archive: Any, tmp_path: Path) -> None:
    Dataset.create(tmp_path / "data", SPEC, table())
    dataset = Dataset.load(tmp_path / "data")
    for row, pixels in zip(dataset.cases.itertuples(), PIXELS, strict=True):
        path = dataset.image_path(row)
        assert str(path).startswith("memory://archive/")
        np.testing.assert_array_equal(read_image(path)[:, :, 0], pixels)
        np.testing.assert_array_equal(read_image(str(path))[:, :, 0], pixels)
        assert image_size(path) == (48, 40)
    mask = dataset.mask_path(dataset.cases.iloc[0])
    assert mask is not None
    np.testing.assert_array_equal(read_mask(mask, 1), PIXELS[0] > 127)
    assert dataset.mask_path(dataset.cases.iloc[1]) is None


def test_files_of_the_dataset_folder_come_first(archive: Any, tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data", SPEC, table())
    (tmp_path / "data/1.png").write_bytes(png(PIXELS[5]))
    path = dataset.image_path(dataset.cases.iloc[1])
    assert path == tmp_path / "data/1.png"
    moved = Dataset(
        tmp_path / "data",
        SPEC.model_copy(update={"roots": ["memory://none", *SPEC.roots]}),
        table(),
    )
    assert str(moved.image_path(moved.cases.iloc[2])) == "memory://archive/2.png"


def test_an_archive_is_read_once_and_only_small_pixels_are_kept(
    archive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.create(tmp_path / "data", SPEC, table())
    fetched: Counter[str] = Counter()
    plain = type(archive).open

    def count(files: Any, name: str, *args: Any, **options: Any) -> Any:
        fetched[Path(name).name] += 1
        return plain(files, name, *args, **options)

    monkeypatch.setattr(type(archive), "open", count)
    splits = make_splits(dataset)  # patients are known: no image is compared
    images = cached_images(dataset, dataset.cases, 32, tmp_path / "cache")
    assert images.shape == (6, 32, 32, 1)
    assert fetched == dict.fromkeys((f"{number}.png" for number in range(6)), 1)
    np.testing.assert_array_equal(
        cached_images(dataset, dataset.cases, 32, tmp_path / "cache"), images
    )
    assert fetched == dict.fromkeys((f"{number}.png" for number in range(6)), 1)
    masks = cached_masks(dataset, dataset.cases.iloc[:2], 32, tmp_path / "cache")
    assert masks[0].any()
    assert not masks[1].any()
    stored = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert stored < images.nbytes + masks.nbytes + 1000
    assert len(splits) == 6


def test_the_cache_follows_a_file_that_changes(archive: Any, tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data", SPEC, table())
    before = cached_images(dataset, dataset.cases, 48, tmp_path / "cache").copy()
    archive.pipe("/archive/3.png", png(255 - PIXELS[3]))
    after = cached_images(dataset, dataset.cases, 48, tmp_path / "cache")
    changed = [not np.array_equal(one, two) for one, two in zip(before, after, strict=True)]
    assert changed == [False, False, False, True, False, False]


def test_near_duplicates_are_found_at_addresses(archive: Any, tmp_path: Path) -> None:
    archive.pipe("/archive/4.png", png(PIXELS[0]))
    dataset = Dataset.create(tmp_path / "data", SPEC, table(patient_id=[""] * 6))
    group = make_splits(dataset, cache=tmp_path / "found.sqlite")["group"].tolist()
    assert group[4] == group[0]
    assert len(set(group)) == 5


@pytest.mark.parametrize(
    "image",
    [
        "memory://secret/0.png",
        "memory://archive",
        "memory://archives/0.png",
        "memory://archive/../secret/0.png",
        "https://user:password@example.org/0.png",
        "https://example.org/0.png?signature=1",
        "file:///etc/hostname",
    ],
)
def test_only_addresses_below_a_root_are_allowed(image: str, tmp_path: Path) -> None:
    cases = table(image=[image, *(f"{number}.png" for number in range(1, 6))])
    with pytest.raises(DxsegError, match=r"row 2, column image.*plain address") as refused:
        Dataset(tmp_path, SPEC, cases)
    assert "password" not in str(refused.value)
    assert "signature" not in str(refused.value)


def test_a_relative_name_cannot_turn_into_another_address(archive: Any, tmp_path: Path) -> None:
    names = ["memory://archive/0.png", "chain::memory://secret/0.png", *("2345")]
    dataset = Dataset(tmp_path, SPEC, table(image=names))
    with pytest.raises(DxsegError, match=r"case 'b'.*plain address"):
        dataset.image_path(dataset.cases.iloc[1])


@pytest.mark.parametrize("root", ["https://user:password@example.org/a", "s3://b/../c"])
def test_a_root_with_credentials_is_refused_unshown(root: str, tmp_path: Path) -> None:
    Dataset.create(tmp_path / "data", SPEC, table())
    path = tmp_path / "data/dataset.yaml"
    path.write_text(path.read_text("utf-8").replace("memory://archive", root), "utf-8")
    with pytest.raises(DxsegError, match=r"dataset\.yaml: field roots") as refused:
        Dataset.load(tmp_path / "data")
    assert "password" not in str(refused.value)


def test_file_roots_are_local_folders_with_their_checks(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/1.png").write_bytes(png(PIXELS[1]))
    (tmp_path / "outside.png").write_bytes(png(PIXELS[1]))
    (tmp_path / "far/link.png").symlink_to(tmp_path / "outside.png")
    spec = SPEC.model_copy(update={"roots": [f"file://{tmp_path}/far"]})
    names = [f"file://{tmp_path}/far/1.png", "1.png", "link.png", "none.png", "4.png", "5.png"]
    dataset = Dataset(tmp_path / "data", spec, table(image=names, slice_index=range(6)))
    for row in dataset.cases.head(2).itertuples():
        assert dataset.image_path(row) == tmp_path / "far/1.png"
    with pytest.raises(DxsegError, match="outside the dataset"):
        dataset.image_path(dataset.cases.iloc[2])
    with pytest.raises(DxsegError, match="no such file"):
        dataset.image_path(dataset.cases.iloc[3])


def test_damaged_and_absent_files_are_named_by_their_address(archive: Any, tmp_path: Path) -> None:
    archive.pipe("/archive/1.png", png(PIXELS[1])[:200])
    dataset = Dataset(
        tmp_path, SPEC, table(image=[f"{number}.png" for number in (0, 1, 9, 3, 4, 5)])
    )
    rows = list(dataset.cases.itertuples())
    with pytest.raises(DxsegError, match=r"memory://archive/1\.png: damaged or cut short"):
        read_image(dataset.image_path(rows[1]))
    with pytest.raises(DxsegError, match=r"memory://archive/9\.png: no such file"):
        read_image(dataset.image_path(rows[2]))
