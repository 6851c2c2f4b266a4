"""Every spoiled file becomes the finding it should, of its case alone, and never a crash."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dxseg.data.readers.masks import inspect_mask, write_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.quality.case_inspection import (
    BORDER_PIXELS,
    CaseFiles,
    border_strip,
    inspect_case,
    unpack,
)
from dxseg.training.datamodule.spacing import target_spacing

Spoil = Callable[[Any], None]


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """Return a PNG of some bytes that claims 3.6 thousand million pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    size, checksum = struct.pack(">I", 13), struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + size + header + checksum + b"\0\0\0\0IDAT\0\0\0\0"


def write(name: str, content: Callable[[Any], bytes]) -> Spoil:
    return lambda folder: (folder.root / name).write_bytes(content(folder)) and None


def cut(name: str) -> Spoil:
    return write(name, lambda folder: (folder.root / name).read_bytes()[:-60])


def leads_away(name: str) -> Spoil:
    def spoil(folder: Any) -> None:
        outside = folder.root.parent / "elsewhere.png"
        (folder.root / name).rename(outside)
        (folder.root / name).symlink_to(outside)

    return spoil


def replaced(name: str, pixels: Callable[[Any], Any]) -> Spoil:
    return lambda folder: folder.image(name, pixels(folder)) and None


def four_channels(folder: Any) -> None:
    pixels = np.dstack([folder.scene(i) for i in range(4)])
    # Unspecified extra samples are channels; without this the fourth would be transparency.
    tifffile.imwrite(folder.root / "c3.tif", pixels, photometric="minisblack", planarconfig=1)
    folder.set("c3", image="c3.tif")


def jpeg_named_png(folder: Any) -> None:
    Image.fromarray(folder.scene(3)).save(folder.root / "c3.png", "JPEG")


def turned(orientation: int, rows: int = 40) -> Spoil:
    """The image as a camera stores it; cut to some rows, with a mask of that stored shape."""

    def spoil(folder: Any) -> None:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(folder.scene(3)[:rows]).save(folder.root / "c3.png", exif=exif)
        folder.image("c3_mask.png", folder.disc()[:rows])

    return spoil


def soft_edges(folder: Any) -> Any:
    large = Image.fromarray(folder.disc()).resize((160, 160))
    return np.asarray(large.resize((40, 40), Image.Resampling.BOX))


def rgba(folder: Any) -> Any:
    mask = folder.disc()
    return np.dstack([mask, mask, mask, np.full_like(mask, 255)])


def color(folder: Any) -> Any:
    return np.dstack([folder.disc(), folder.disc() * 0, folder.disc() * 0])


def big_and_small(folder: Any) -> None:
    """Three lesions in an image of 480 x 480: the Dice of the whole mask hides the small ones."""
    folder.image("c3.png", np.asarray(Image.fromarray(folder.scene(3)).resize((480, 480))))
    mask = np.zeros((480, 480), np.uint8)
    mask[100:160, 100:160] = mask[300, 300:303] = mask[350:352, 400:402] = 255
    folder.image("c3_mask.png", mask)


def case_files(image: Path, mask: Path | None) -> CaseFiles:
    return CaseFiles(image, mask, 1, 1, (1,), 128, None)


def thin_line(folder: Any) -> None:
    """A lesion of 3 x 100 pixels in an image of 1200 x 1200."""
    folder.image("c3.png", np.asarray(Image.fromarray(folder.scene(3)).resize((1200, 1200))))
    mask = np.zeros((1200, 1200), np.uint8)
    mask[600:603, 500:600] = 255
    folder.image("c3_mask.png", mask)


def united(folder: Any) -> None:
    write_mask(folder.root / "c3_mask.png", folder.disc() // 255, 1, merged_count=3)


IMAGE, MASK = "c3.png", "c3_mask.png"


def test_lost_detail_is_that_of_the_input_that_is_asked_for(
    folder: Any, codes: Any, cli: Callable[..., Any]
) -> None:
    big_and_small(folder)
    folder.spec |= {"spacing_unit": "mm"}
    folder.table[["spacing_y", "spacing_x"]] = 1.0
    assert "mask-detail" in codes(folder.check())
    assert "mask-detail" not in codes(folder.check(image_size=480))
    for spacing in ("auto", (1.0, 1.0)):
        assert "mask-detail" not in codes(folder.check(image_size=480, spacing=spacing))
    [found] = codes(folder.check(image_size=480, spacing=(4.0, 4.0)))["mask-detail"].details
    assert found == "a lesion at best 0.00 at 480 px"
    words = ("check", folder.root, "--image-size", "480", "--spacing")
    assert "mask-detail" in cli(*words, "[4, 4]").output
    assert "mask-detail" not in cli(*words, "auto").output
    with pytest.raises(UsageError, match=r"data\.image_size"):
        folder.check(image_size=5)


@pytest.mark.parametrize(
    ("code", "spoil", "message"),
    [
        ("image-not-found", lambda f: (f.root / IMAGE).unlink(), "no such file"),
        ("image-not-found", leads_away(IMAGE), "outside the dataset"),
        ("image-not-found", lambda f: f.set("c3", image="x" * 300 + ".png"), ""),
        ("image-unreadable", write(IMAGE, lambda _: b""), "0 bytes"),
        ("image-unreadable", cut(IMAGE), "cut short"),
        ("image-unreadable", write(IMAGE, lambda _: b"hello"), "not an image"),
        ("image-unreadable", write(IMAGE, lambda _: bomb()), "60000 x 60000"),
        ("image-channels", four_channels, "4 channel(s)"),
        ("image-depth-mixed", replaced(IMAGE, lambda f: f.scene(3).astype("u2") * 9), "16 bit"),
        ("image-constant", replaced(IMAGE, lambda f: f.scene(3) * 0 + 7), ""),
        ("image-saturated", replaced(IMAGE, lambda f: f.scene(3).clip(0, 60) + 9), "% of the"),
        ("image-suffix", jpeg_named_png, "contains JPEG"),
        ("mask-not-found", lambda f: (f.root / MASK).unlink(), "no such file"),
        ("mask-not-found", leads_away(MASK), "outside the dataset"),
        ("mask-unreadable", write(MASK, lambda _: b""), "0 bytes"),
        ("mask-unreadable", cut(MASK), "cut short"),
        ("mask-unreadable", write(MASK, lambda _: bomb()), "60000 x 60000"),
        ("mask-refused", replaced(MASK, color), "color mask"),
        ("mask-refused", replaced(MASK, lambda f: f.scene(9)), "expected"),
        ("mask-size", replaced(MASK, lambda f: f.disc()[:30]), "30 x 40"),
        ("mask-on-lesion-free", lambda f: f.set("c3", label="normal"), "pixels"),
        ("mask-empty", replaced(MASK, lambda f: f.disc() * 0), ""),
        ("mask-nearly-empty", replaced(MASK, lambda f: f.disc(1.1)), "5 pixels"),
        ("mask-detail", thin_line, "at best 0.00 at 128 px"),
        ("mask-detail", big_and_small, "a lesion at best 0.00"),
        ("mask-border", replaced(MASK, lambda f: 255 - f.disc()), ""),
        ("mask-left-out", lambda f: f.image("c3_mask_1.png", f.disc()), "c3_mask_1.png"),
        ("mask-repaired", replaced(MASK, soft_edges), "edges"),
        ("mask-layout", replaced(MASK, rgba), "RGB and transparency"),
        ("mask-merged", united, "of 3"),
    ],
)
def test_a_spoiled_case_is_found(
    folder: Any, codes: Any, code: str, spoil: Spoil, message: str
) -> None:
    spoil(folder)
    found = codes(folder.check())
    assert list(found) == [code]
    assert found[code].case_ids == ["c3"]
    assert (found[code].count, found[code].group_count) == (1, 0)
    assert message in " ".join(found[code].details)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (turned(3), "mask-orientation"),
        (turned(6), "mask-orientation"),
        (turned(6, 30), "mask-size"),
    ],
)
def test_orientations_are_found(folder: Any, codes: Any, spoil: Spoil, expected: str) -> None:
    spoil(folder)
    found = codes(folder.check())
    assert set(found) == {expected, "image-orientation"}
    assert "EXIF orientation" in " ".join(found[expected].details)


def test_a_clean_dataset_has_no_finding(folder: Any, codes: Any) -> None:
    report = folder.check()
    assert codes(report) == {}
    assert report.valid
    assert (report.cases, report.statistics.masks, report.statistics.lesion_free) == (6, 4, 2)
    assert report.statistics.labels == {"normal": 2, "benign": 2, "malignant": 2}
    assert report.statistics.height.median == report.statistics.width.maximum == 40
    share = [(folder.disc(row=15 + number) > 0).mean() for number in range(2, 6)]
    assert report.statistics.lesion_fraction.median == pytest.approx(np.median(share))
    means = [folder.scene(number).mean() / 255 for number in range(6)]
    assert report.statistics.intensity_mean.maximum == pytest.approx(max(means))
    deviations = [folder.scene(number).std() / 255 for number in range(6)]
    assert report.statistics.intensity_deviation.minimum == pytest.approx(min(deviations))


@pytest.mark.parametrize(
    ("code", "values"),
    [
        ("label-missing", {"label": ""}),
        ("patient-missing", {"patient_id": ""}),
    ],
)
def test_what_the_table_lacks_is_found(folder: Any, codes: Any, code: str, values: Any) -> None:
    folder.set("c3", **values)
    found = codes(folder.check())
    assert list(found) == [code]
    assert found[code].case_ids == ["c3"]


def test_a_group_is_no_patient(folder: Any, codes: Any) -> None:
    folder.set("c3", patient_id="", group="g")
    assert list(codes(folder.check())) == ["patient-missing"]


def test_a_case_with_nothing_is_of_no_use(folder: Any, codes: Any) -> None:
    folder.set("c3", label="", mask="")
    assert list(codes(folder.check())) == ["label-missing", "unused"]


def test_millimeters_without_spacing(folder: Any, codes: Any) -> None:
    folder.spec["spacing_unit"] = "mm"
    for case in ("c0", "c1", "c2", "c4", "c5"):
        folder.set(case, spacing_y="0.1", spacing_x="0.2")
    report = folder.check()
    assert codes(report)["spacing-missing"].case_ids == ["c3"]
    assert report.statistics.spacing_x.median == 0.2


def test_a_volume_counts_once_in_the_spacings(folder: Any) -> None:
    """As in `data.spacing=auto`; by slices, the median would be that of the volume."""
    folder.spec["spacing_unit"] = "mm"
    for number, case in enumerate(("c0", "c1", "c2", "c3")):
        folder.set(case, volume_id="v", patient_id="p", slice_index=str(number))
        folder.set(case, spacing_y="1", spacing_x="1", spacing_z="5")
    for case in ("c4", "c5"):
        folder.set(case, spacing_y="0.5", spacing_x="0.25")
    statistics = folder.check().statistics
    assert (statistics.spacing_y.median, statistics.spacing_x.median) == (0.5, 0.25)
    assert statistics.spacing_z.median == 5
    assert target_spacing(Dataset.load(folder.root), "auto") == (0.5, 0.25)


def test_a_spacing_that_is_no_number_is_the_tables_error(folder: Any) -> None:
    folder.save()
    text = (folder.root / "cases.csv").read_text().splitlines()
    text[0] = "case_id,image,spacing_y,spacing_x"
    (folder.root / "cases.csv").write_text("\n".join([text[0], "c0,c0.png,NaN,0.1"]))
    from dxseg import check

    with pytest.raises(DxsegError, match="spacing_y, value 'NaN'"):
        check(folder.root, workers=1)
    assert not (folder.root / "check").exists()


def test_a_mask_that_two_cases_share(folder: Any, codes: Any) -> None:
    folder.set("c3", mask="c2_mask.png")
    assert codes(folder.check())["mask-shared"].case_ids == ["c2", "c3"]


def test_masks_that_the_table_uses_or_that_name_another_case_are_not_left_out(
    folder: Any, codes: Any
) -> None:
    folder.image("c3_mask_1.png", folder.disc())
    folder.image("c9.png", folder.scene(9))
    folder.set("c9", mask="c3_mask_1.png", label="benign")
    assert codes(folder.check()) == {}
    folder.image("c2_mask_1.png", folder.scene(10))
    folder.set("c2_mask_1", label="benign")
    assert codes(folder.check()) == {}


@pytest.mark.parametrize(
    ("image", "mask", "other", "its_mask"),
    [
        ("images/a.png", "masks/a.png", "images/a_1.JPG", "masks/a_1.png"),
        ("b.png", "b_mask.png", "b_1.png", "b_mask_1.png"),
    ],
)
def test_a_numbered_mask_may_be_of_an_image_that_is_not_in_the_table(
    folder: Any, codes: Any, image: str, mask: str, other: str, its_mask: str
) -> None:
    for name, pixels in (
        (image, folder.scene(9)),
        (mask, folder.disc()),
        (its_mask, folder.disc()),
    ):
        folder.image(name, pixels)
    folder.set("c9", image=image, mask=mask, label="benign")
    assert codes(folder.check())["mask-left-out"].case_ids == ["c9"]
    folder.root.joinpath(other).write_bytes(b"damaged")
    assert "mask-left-out" not in codes(folder.check())


def test_labels_with_too_few_groups_are_named(folder: Any) -> None:
    folder.spec["labels"] = [*folder.spec["labels"], "cyst"]
    for number in range(10, 18):
        folder.image(f"c{number}.png", folder.scene(number))
        folder.set(f"c{number}", label="benign")
    rare = {f.code: f for f in folder.check().findings}["label-rare"]
    assert rare.details == [
        f"{n} patients or groups" for n in ("normal: 2", "malignant: 2", "cyst: 0")
    ]
    assert rare.case_ids == ["c0", "c1", "c4", "c5"]


def test_a_merged_mask_keeps_its_mark_wherever_it_goes(tmp_path: Path) -> None:
    write_mask(tmp_path / "a.png", np.eye(9, dtype=np.uint8), 1, merged_count=2)
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    reading = inspect_mask(tmp_path / "b.png", 1)
    assert (reading.merged_count, reading.repair, reading.layout) == (2, "", "")
    assert reading.mask.tolist() == np.eye(9).tolist()


def test_the_border_strip_leaves_out_the_middle() -> None:
    pixels = np.full((64, 64), 200, np.uint8)
    pixels[8:-8, 8:-8] = 0
    assert set(border_strip(Image.fromarray(pixels)).tolist()) == {200}
    assert border_strip(Image.fromarray(pixels)).shape == (BORDER_PIXELS,)


def test_a_damaged_tiff_without_pixels_is_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    Image.fromarray(np.ones((12, 12), np.uint8)).save(file)
    content = bytearray(file.read_bytes())
    content[12] = 0  # the type of the tag that holds the width
    file.write_bytes(content)
    assert unpack(inspect_case(case_files(file, None)))[2].image_code == "image-unreadable"


@given(
    st.sampled_from([".png", ".jpg", ".tif", ".bmp"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    st.floats(0, 1),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_stops_an_inspection(
    tmp_path: Path, suffix: str, changes: list[tuple[float, int]], length: float
) -> None:
    """Bytes are changed anywhere and the end may be missing, in image and mask alike."""
    file = tmp_path / f"a{suffix}"
    picture = np.random.default_rng(0).integers(0, 255, (12, 12), np.uint8)
    Image.fromarray(picture).save(file)
    content = bytearray(file.read_bytes())
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    file.write_bytes(content[: round(length * len(content))])
    _, strip, facts = unpack(inspect_case(case_files(file, file)))
    assert (facts.height > 0) == (facts.image_code != "image-unreadable")
    assert facts.image_code == "" or facts.image_problem
    assert facts.mask_code == "" or facts.mask_problem
    assert facts.height or not strip.any()


def test_a_dataset_without_labels(folder: Any, codes: Any) -> None:
    folder.spec.update(labels=[], lesion_free=[])
    folder.table["label"] = ""
    report = folder.check()
    assert list(codes(report)) == ["unused"]
    assert codes(report)["unused"].case_ids == ["c0", "c1"]
    assert [probe.mean for probe in report.probes] == [None, None, None]
