from __future__ import annotations

import os
from pathlib import Path

import pytest

from dxseg.errors import UsageError
from dxseg.inference.files.inputs import find_images


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(*inputs: str | Path, skip: tuple[Path, ...] = ()) -> list[str]:
    return [item.name for item in find_images(inputs, skip=skip)]


def test_a_folder_is_searched_through_all_levels_for_images(tmp_path):
    touch(tmp_path, "b.PNG", "a/x.jpg", "a/b/y.tiff", "notes.txt", ".hidden.png", ".git/z.png")
    assert names(tmp_path) == ["a/b/y.tiff", "a/x.jpg", "b.PNG"]
    assert [item.stem for item in find_images([tmp_path])] == ["a/b/y", "a/x", "b"]


def test_files_folders_and_patterns_share_one_root(tmp_path):
    touch(tmp_path, "p1/image.png", "p2/image.png", "p3/deep/image.png")
    folders = [tmp_path / "p1", tmp_path / "p2"]
    assert names(*folders) == ["p1/image.png", "p2/image.png"]
    assert names(*(folder / "image.png" for folder in folders)) == ["p1/image.png", "p2/image.png"]
    assert names(f"{tmp_path}/*/image.png") == ["p1/image.png", "p2/image.png"]
    assert names(f"{tmp_path}/**/*.png")[-1] == "p3/deep/image.png"
    assert names(tmp_path / "p1" / "image.png") == ["image.png"]


def test_dots_in_paths_do_not_reach_the_names(tmp_path):
    touch(tmp_path, "a/one.png", "b/two.png")
    given = [tmp_path / "a" / ".." / "b", tmp_path / "a"]
    assert names(*given) == ["a/one.png", "b/two.png"]
    assert all(".." not in item.source.parts for item in find_images(given))


def test_relative_inputs_are_taken_from_here(tmp_path, monkeypatch):
    touch(tmp_path, "here/a.png")
    monkeypatch.chdir(tmp_path / "here")
    [item] = find_images(["."])
    assert (item.name, item.source) == ("a.png", tmp_path / "here" / "a.png")


def test_an_image_that_is_given_twice_is_taken_once(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    assert names(tmp_path, tmp_path / "a.png", f"{tmp_path}/*.png") == ["a.png", "b.png"]


def test_a_name_that_looks_like_a_pattern_is_a_file_if_there_is_one(tmp_path):
    touch(tmp_path, "scan[1].png", "scan1.png")
    assert names(tmp_path / "scan[1].png") == ["scan[1].png"]


def test_earlier_results_are_no_inputs(tmp_path):
    touch(tmp_path, "a.png", "out/masks/a.png")
    assert names(tmp_path, skip=(tmp_path / "out" / "masks",)) == ["a.png"]


def test_links_to_files_are_taken_and_links_to_folders_passed_over(tmp_path):
    touch(tmp_path, "data/a.png", "elsewhere/b.png")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    assert names(tmp_path / "data") == ["a.png", "link.png"]


def test_a_file_named_itself_is_taken_whatever_its_suffix(tmp_path):
    touch(tmp_path, "a.weird")
    assert names(tmp_path / "a.weird") == ["a.weird"]


@pytest.mark.parametrize("other", ["a.jpg", "A.png", "\u00e1.jpg"])
def test_two_images_never_share_a_result(tmp_path, other):
    first = "a\u0301.png" if other == "\u00e1.jpg" else "a.png"
    touch(tmp_path, first, other)
    with pytest.raises(UsageError, match="would both write"):
        find_images([tmp_path])


@pytest.mark.parametrize("given", ["absent.png", "*.png", "empty", "notes"])
def test_an_input_without_images_is_told(tmp_path, given):
    touch(tmp_path, "notes/a.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=os.path.basename(given).replace("*", r"\*")):  # noqa: PTH119
        find_images([tmp_path / given])


def test_no_input_at_all_is_told():
    with pytest.raises(UsageError, match="no input"):
        find_images([])


def test_a_link_to_a_missing_image_is_an_input_that_fails_by_name(tmp_path):
    touch(tmp_path, "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "absent.png")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "absent.txt")
    passed_over: list[Path] = []
    found = find_images([tmp_path], passed_over=passed_over)
    assert [item.name for item in found] == ["a.png", "b.png"]
    assert [path.name for path in passed_over] == ["notes.txt"]


def test_the_voxels_of_a_header_are_no_file_of_their_own(tmp_path):
    header = "NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = ct.raw\n"
    (tmp_path / "ct.mhd").write_text(header)
    (tmp_path / "damaged.mhd").write_text("NDims = 3\n")
    for name in ("ct.raw", "other.raw"):
        (tmp_path / name).write_bytes(bytes(8))
    passed_over: list[Path] = []
    found = find_images([tmp_path], passed_over=passed_over)
    assert [item.name for item in found] == ["ct.mhd", "damaged.mhd"]
    assert [path.name for path in passed_over] == ["other.raw"]
    parts = [{path.name for path in item.files} for item in found]
    assert parts == [{"ct.mhd", "ct.raw"}, {"damaged.mhd"}], "which are looked at for changes"
