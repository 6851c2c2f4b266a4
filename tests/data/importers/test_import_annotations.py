"""Annotations of other tools become masks: each value against shapes that are written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg.commands.import_annotations import import_annotations
from dxseg.data.exporters.brush_rle import encode_brush
from dxseg.data.exporters.coco_rle import encode_runs, pack_runs
from dxseg.data.importers.layout import find_layout
from dxseg.data.importers.report import ImportReport
from dxseg.data.readers.masks import read_mask
from dxseg.data.readers.orientation import as_shown
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError

HEIGHT, WIDTH = 20, 30
# The corners of pixels: 6 x 4 pixels from column 5 and row 8.
CORNERS = [(5, 8), (11, 8), (11, 12), (5, 12)]
EXPECTED = np.zeros((HEIGHT, WIDTH), np.uint8)
EXPECTED[8:12, 5:11] = 1
FLAT = [value for corner in CORNERS for value in corner]


def picture(path: Path, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (HEIGHT, WIDTH, 3))
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels.astype(np.uint8)).save(path, exif=exif)
    return path


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def coco(*annotations: dict[str, Any], **image: Any) -> dict[str, Any]:
    size = {"height": HEIGHT, "width": WIDTH}
    return {
        "images": [{"id": 1, "file_name": "a.png", **size, **image}],
        "categories": [{"id": 3, "name": "polyp"}, {"id": 4, "name": "ulcer"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 3, **item}
            for number, item in enumerate(annotations)
        ],
    }


def labelme(*shapes: dict[str, Any], name: str = "a.png") -> dict[str, Any]:
    return {
        "version": "5.4.1",
        "shapes": [{"label": "polyp", "group_id": None, **shape} for shape in shapes],
        "imagePath": name,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }


def via(*places: dict[str, Any]) -> dict[str, Any]:
    regions = [
        {"shape_attributes": place, "region_attributes": {"type": "polyp"}} for place in places
    ]
    return {"a.png1234": {"filename": "a.png", "size": 1234, "regions": regions}}


VIA_POLYGON = {
    "name": "polygon",
    "all_points_x": [x for x, _ in CORNERS],
    "all_points_y": [y for _, y in CORNERS],
}


def studio(kind: str, value: dict[str, Any]) -> list[dict[str, Any]]:
    region = {"type": kind, "original_width": WIDTH, "original_height": HEIGHT, "value": value}
    data = {"image": "/data/local-files/?d=pictures%2Fa.png"}
    return [{"id": 1, "data": data, "annotations": [{"id": 2, "result": [region]}]}]


def cvat(*shapes: str) -> str:
    return (
        f'<annotations><version>1.1</version><image id="0" name="a.png" width="{WIDTH}" '
        f'height="{HEIGHT}">{"".join(shapes)}<tag label="seen"/></image></annotations>'
    )


def voc(*objects: str) -> str:
    return (
        f"<annotation><filename>a.png</filename><size><width>{WIDTH}</width><height>{HEIGHT}"
        f"</height><depth>3</depth></size>{''.join(objects)}</annotation>"
    )


CVAT_POLYGON = f'<polygon label="polyp" points="{";".join(f"{x}.0,{y}.0" for x, y in CORNERS)}"/>'
VOC_POLYGON = (
    "<object><name>polyp</name><polygon>"
    + "".join(f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>" for n, (x, y) in enumerate(CORNERS, 1))
    + "</polygon></object>"
)
OLD_LABELME = (
    "<object><name>polyp</name><deleted>0</deleted><polygon>"
    + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in CORNERS)
    + "</polygon></object><object><name>polyp</name><deleted>1</deleted></object>"
)
PERCENT = [(100 * x / WIDTH, 100 * y / HEIGHT) for x, y in CORNERS]
RUNS = encode_runs(EXPECTED > 0)

SAME: dict[str, tuple[str, Any]] = {
    "coco polygon": ("c.json", coco({"segmentation": [FLAT], "bbox": [5, 8, 6, 4]})),
    "coco parts": (
        "c.json",
        coco({"segmentation": [[5, 8, 8, 8, 8, 12, 5, 12], [8, 8, 11, 8, 11, 12, 8, 12]]}),
    ),
    "coco crowd": (
        "c.json",
        coco({"segmentation": {"size": [HEIGHT, WIDTH], "counts": RUNS}, "iscrowd": 1}),
    ),
    "coco packed": (
        "c.json",
        coco({"segmentation": {"size": [HEIGHT, WIDTH], "counts": pack_runs(RUNS)}}),
    ),
    "labelme": ("a.json", labelme({"points": CORNERS, "shape_type": "polygon"})),
    "labelme elsewhere": (
        "json/a.json",
        labelme({"points": CORNERS, "shape_type": "polygon"}, name="..\\pictures\\a.png"),
    ),
    "via": ("v.json", via(VIA_POLYGON)),
    "via project": ("v.json", {"_via_settings": {}, "_via_img_metadata": via(VIA_POLYGON)}),
    "label studio": (
        "l.json",
        studio("polygonlabels", {"points": PERCENT, "polygonlabels": ["polyp"]}),
    ),
    "label studio brush": (
        "l.json",
        studio("brushlabels", {"rle": encode_brush(EXPECTED > 0), "brushlabels": ["polyp"]}),
    ),
    "cvat": ("c.xml", cvat(CVAT_POLYGON)),
    "cvat mask": (
        "c.xml",
        cvat('<mask label="polyp" rle="0,24" left="5" top="8" width="6" height="4"/>'),
    ),
    "voc": ("a.xml", voc(VOC_POLYGON)),
    "voc of labelme": ("a.xml", voc(OLD_LABELME)),
}


def imported(
    tmp_path: Path, content: Any, name: str = "in/c.json", **options: Any
) -> tuple[ImportReport, Dataset]:
    report = import_annotations(write(tmp_path / name, content), tmp_path / "data", **options)
    return report, Dataset.load(tmp_path / "data")


def masks(dataset: Dataset) -> dict[str, np.ndarray | None]:
    classes = len(dataset.spec.mask_classes)
    paths = {row.case_id: dataset.mask_path(row) for row in dataset.cases.itertuples()}
    return {name: path and read_mask(path, classes) for name, path in paths.items()}


def told(report: ImportReport, text: str) -> bool:
    return any(text in note for note in report.notes)


@pytest.mark.parametrize("kind", SAME)
def test_one_shape_in_every_format(tmp_path: Path, kind: str) -> None:
    name, content = SAME[kind]
    picture(tmp_path / "in/pictures/a.png")
    report, dataset = imported(
        tmp_path, content, f"in/{name}", images_root=tmp_path / "in", lesion_free=["none"]
    )
    assert dataset.spec.mask_classes == ["polyp"]
    assert dataset.cases["label"].tolist() == ["polyp"]
    np.testing.assert_array_equal(masks(dataset)["a"], EXPECTED)
    assert dataset.image_path(next(dataset.cases.itertuples())) == tmp_path / "in/pictures/a.png"
    assert told(report, "1 shapes drawn")


@pytest.mark.parametrize("spec", ["data.yaml", "classes.txt"])
@pytest.mark.parametrize("apart", [True, False])
def test_yolo(tmp_path: Path, spec: str, apart: bool) -> None:
    folders = ("images/train", "labels/train") if apart else ("all", "all")
    picture(tmp_path / "in" / folders[0] / "a.png")
    picture(tmp_path / "in" / folders[0] / "b.png")
    line = " ".join(f"{x / WIDTH:.9f} {y / HEIGHT:.9f}" for x, y in CORNERS)
    write(tmp_path / "in" / folders[1] / "a.txt", f"1 {line}\n\n")
    write(tmp_path / "in" / folders[1] / "b.txt", "")
    names = "names: [other, polyp]\n" if spec == "data.yaml" else "other\npolyp\n"
    write(tmp_path / "in" / spec, names)
    import_annotations(tmp_path / "in", tmp_path / "data", lesion_free=["none"])
    dataset = Dataset.load(tmp_path / "data")
    np.testing.assert_array_equal(masks(dataset)["a"], EXPECTED)
    assert masks(dataset)["b"] is None
    assert dataset.cases["label"].tolist() == ["polyp", "none"]
    assert dataset.spec.lesion_free == ["none"]


def test_polygons_are_close_to_those_of_pycocotools(tmp_path: Path) -> None:
    coco_mask = pytest.importorskip("pycocotools.mask")
    picture(tmp_path / "in/a.png")
    rng = np.random.default_rng(0)
    for number in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(4, 9, 9)
        points = np.stack([15 + radii * np.cos(angles), 10 + radii * np.sin(angles)], axis=1)
        flat = points.ravel().tolist()
        _, dataset = imported(
            tmp_path, coco({"segmentation": [flat]}), overwrite=number > 0, name="in/c.json"
        )
        own = masks(dataset)["a"]
        theirs = coco_mask.decode(coco_mask.frPyObjects([flat], HEIGHT, WIDTH))[:, :, 0]
        # Theirs rounds corners to fifths of a pixel, and pixels that the edge crosses either way.
        assert own is not None
        assert (own != theirs).sum() <= 0.12 * own.sum()


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (labelme({"points": [[15, 10], [15, 16]], "shape_type": "circle"}), np.pi * 36),
        (via({"name": "circle", "cx": 15, "cy": 10, "r": 6}), np.pi * 36),
        (via({"name": "ellipse", "cx": 15, "cy": 10, "rx": 9, "ry": 4, "theta": 0.5}), np.pi * 36),
        (
            studio(
                "ellipselabels",
                {"x": 50, "y": 50, "radiusX": 30, "radiusY": 20, "ellipselabels": ["polyp"]},
            ),
            np.pi * 36,
        ),
    ],
)
def test_circles_and_ellipses_have_their_area(tmp_path: Path, shape: Any, area: float) -> None:
    picture(tmp_path / "in/a.png")
    _, dataset = imported(tmp_path, shape)
    mask = masks(dataset)["a"]
    assert mask is not None
    assert mask.sum() == pytest.approx(area, rel=0.05)
    rows, columns = np.nonzero(mask)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((10, 15), abs=0.2)


def box(kind: str) -> Any:
    return {
        "coco": (
            "c.json",
            coco({"segmentation": [], "bbox": [1, 2, 3, 4]}, {"segmentation": [FLAT]}),
        ),
        "labelme": (
            "a.json",
            labelme(
                {"points": [[1, 1], [5, 5]], "shape_type": "rectangle"},
                {"points": CORNERS, "shape_type": "polygon"},
            ),
        ),
        "via": ("v.json", via(VIA_POLYGON, {"name": "rect", "x": 1, "y": 1, "width": 3})),
        "cvat": ("c.xml", cvat(CVAT_POLYGON, '<box label="polyp" xtl="1" ytl="2"/>')),
        "voc": (
            "a.xml",
            voc(VOC_POLYGON, "<object><name>polyp</name><bndbox><xmin>1</xmin></bndbox></object>"),
        ),
    }[kind]


@pytest.mark.parametrize("kind", ["coco", "labelme", "via", "cvat", "voc"])
def test_an_image_with_a_box_has_labels_and_no_mask(tmp_path: Path, kind: str) -> None:
    name, content = box(kind)
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/b.png")
    write(tmp_path / f"in/{name}", content)
    write(tmp_path / "in/b.json", labelme({"points": CORNERS}, name="b.png"))
    report = import_annotations(tmp_path / "in", tmp_path / "data")
    dataset = Dataset.load(tmp_path / "data")
    assert {name: mask is None for name, mask in masks(dataset).items()} == {"a": True, "b": False}
    assert dataset.cases["label"].tolist() == ["polyp", "polyp"]
    assert told(report, "1 boxes are no masks: 1 images keep their labels and have no mask")


def test_boxes_alone_make_no_dataset(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    with pytest.raises(DxsegError, match=r"no mask could be drawn.*1 boxes are no masks"):
        imported(tmp_path, coco({"bbox": [1, 2, 3, 4]}))


def test_categories_become_classes_and_labels(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    other = [8, 8, 14, 8, 14, 12, 8, 12]
    content = coco({"segmentation": [FLAT]}, {"segmentation": [other], "category_id": 4})
    report, dataset = imported(tmp_path, content)
    expected = EXPECTED.copy()
    expected[8:12, 8:14] = 2
    np.testing.assert_array_equal(masks(dataset)["a"], expected)
    assert dataset.spec.mask_classes == ["polyp", "ulcer"]
    assert dataset.cases["label"].tolist() == ["polyp;ulcer"]
    assert dataset.spec.multi_label
    assert told(report, "1 images on which mask classes overlap")
    report, dataset = imported(
        tmp_path, content, regions={"polyp": "lesion", "ulcer": "lesion"}, overwrite=True
    )
    np.testing.assert_array_equal(masks(dataset)["a"], expected > 0)
    report, dataset = imported(tmp_path, content, regions={"ulcer": "lesion"}, overwrite=True)
    np.testing.assert_array_equal(masks(dataset)["a"], expected == 2)
    assert told(report, "1 shapes of label 'polyp', which has no mask class")
    with pytest.raises(
        UsageError, match="'cyst': no shape has that label; labels are polyp, ulcer"
    ):
        imported(tmp_path, content, regions={"cyst": "lesion"}, overwrite=True)


def test_what_is_missing_or_does_not_fit_is_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "unlisted.png"):
        picture(tmp_path / "in" / name)
    content = coco({"segmentation": [FLAT]}, {"segmentation": [FLAT], "image_id": 2})
    size = {"height": HEIGHT, "width": WIDTH}
    content["images"] += [
        {"id": 2, "file_name": "b.png", "height": 200, "width": 300},
        {"id": 3, "file_name": "gone.png", **size},
        {"id": 4, "file_name": "../../etc/passwd.png", **size},
    ]
    content["annotations"].append({"id": 9, "image_id": 77, "segmentation": [FLAT]})
    content["annotations"].append("nonsense")
    report, dataset = imported(tmp_path, content)
    assert dataset.cases["case_id"].tolist() == ["a", "b"]
    assert masks(dataset)["b"] is None
    assert dataset.cases["label"].tolist() == ["polyp", "polyp"]
    reasons = dict(report.skipped)
    assert (
        "annotated at 200 x 300 pixels, but it has 20 x 30" in reasons[str(tmp_path / "in/b.png")]
    )
    assert "no such images below" in reasons["gone.png"]
    assert "no such images below" in reasons["../../etc/passwd.png"]
    assert reasons[str(tmp_path / "in/c.json")] == "2 annotations of images that are not listed"
    assert told(report, "1 images without annotations (unlisted.png)")


def test_images_listed_without_a_shape_are_lesion_free_only_on_request(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "in" / name)
    content = coco({"segmentation": [FLAT]})
    content["images"].append({"id": 2, "file_name": "b.png", "height": HEIGHT, "width": WIDTH})
    report, dataset = imported(tmp_path, content)
    assert dataset.cases["label"].tolist() == ["polyp", ""]
    assert told(report, "1 images listed without a shape")
    _, dataset = imported(tmp_path, content, lesion_free=["normal"], overwrite=True)
    assert dataset.cases["label"].tolist() == ["polyp", "normal"]
    with pytest.raises(UsageError, match="--lesion-free normal, none: images without a shape"):
        imported(tmp_path, content, lesion_free=["normal", "none"], overwrite=True)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("on_shown", [True, False])
def test_an_exif_orientation(tmp_path: Path, orientation: int, on_shown: bool) -> None:
    picture(tmp_path / "in/a.png", orientation)
    shown = as_shown(EXPECTED, orientation)
    drawn = shown if on_shown else EXPECTED
    runs = {"size": list(drawn.shape), "counts": encode_runs(drawn > 0)}
    content = coco({"segmentation": runs}, height=drawn.shape[0], width=drawn.shape[1])
    report, dataset = imported(tmp_path, content)
    if orientation == 3 and not on_shown:
        # Nothing tells; it is said so.
        assert told(report, "1 masks fit such an image both as shown and as stored")
    else:
        np.testing.assert_array_equal(masks(dataset)["a"], shown)


def test_shapes_smaller_than_a_pixel_do_not_cost_the_mask(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    tiny = [1.1, 1.1, 1.2, 1.1, 1.2, 1.2]
    report, dataset = imported(tmp_path, coco({"segmentation": [FLAT]}, {"segmentation": [tiny]}))
    np.testing.assert_array_equal(masks(dataset)["a"], EXPECTED)
    assert told(report, "1 shapes that enclose no pixel")


def nested(depth: int) -> str:
    return '{"shapes": ' + "[" * depth + "]" * depth + ', "imagePath": "a.png"}'


BOMB = (
    '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx">'
    + "".join(f'<!ENTITY x{n} "{f"&x{n - 1 or str()};" * 10}">' for n in range(1, 10))
    + "]><annotations>&x9;</annotations>"
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", nested(200_000), "not valid JSON"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[1, 2]", "unknown format"),
        ("a.json", {"images": [{"id": 1}], "annotations": []}, "file_name"),
        ("a.json", {"x": {"filename": 3, "regions": 4}}, "filename"),
        ("a.xml", BOMB, "hostile XML"),
        ("a.xml", OUTSIDE, "hostile XML"),
        ("a.xml", "<annotations>", "damaged"),
        ("a.xml", "<html/>", "expected <annotations> of CVAT"),
        ("a.xml", "<annotations><track/></annotations>", "tracks of a video"),
        ("a.csv", "a,b", "unknown type .csv"),
    ],
)
def test_hostile_and_unknown_files_are_refused(
    tmp_path: Path, name: str, content: Any, reason: str
) -> None:
    picture(tmp_path / "in/a.png")
    with pytest.raises(DxsegError, match=reason):
        imported(tmp_path, content, f"in/{name}")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "drawn",
    [
        [[0, 0, 1e12, 0, 4, 4]],
        [[0, 0, float("nan"), 0, 4, 4]],
        {"size": [2**31, 2**31], "counts": [2**62]},
        {"size": [HEIGHT, WIDTH], "counts": "1"},
    ],
)
def test_shapes_without_bounds_cost_their_own_mask(tmp_path: Path, drawn: Any) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "in" / name)
    content = coco({"segmentation": drawn}, {"segmentation": [FLAT], "image_id": 2})
    content["images"].append({"id": 2, "file_name": "b.png", "height": HEIGHT, "width": WIDTH})
    report, dataset = imported(tmp_path, content)
    assert {name: mask is None for name, mask in masks(dataset).items()} == {"a": True, "b": False}
    assert "kept without its mask" in dict(report.skipped)[str(tmp_path / "in/a.png")]


Damage = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    "shape",
    [
        {"segmentation": [[1, 2, 3]]},
        {"segmentation": [[1, 2, 3, 4]]},
        {"segmentation": "text"},
        {"segmentation": {"size": [1], "counts": []}},
        {"segmentation": [["a", "b", 1, 2, 3, 4]]},
        {"segmentation": [FLAT], "category_id": [1]},
    ],
)
def test_a_damaged_shape_is_counted_and_leaves_no_wrong_mask(tmp_path: Path, shape: Any) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "in" / name)
    content = coco(shape, {"segmentation": [FLAT], "image_id": 2})
    content["images"].append({"id": 2, "file_name": "b.png", "height": HEIGHT, "width": WIDTH})
    report, dataset = imported(tmp_path, content, regions={"polyp": "polyp"})
    assert masks(dataset)["a"] is None
    assert told(report, "1 unreadable shapes") or told(report, "which has no mask class")


def test_shapes_without_a_label_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    report, dataset = imported(tmp_path, labelme({"points": CORNERS, "label": ""}))
    assert dataset.spec.mask_classes == ["lesion"]
    assert told(report, "1 shapes have no label; they are 'lesion'")


def test_one_image_in_several_files_has_the_shapes_of_all(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png")
    write(tmp_path / "in/1.json", coco({"segmentation": [FLAT]}))
    write(tmp_path / "in/2.json", coco({"segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]]}))
    write(tmp_path / "in/other.json", {"settings": 1})
    report = import_annotations(tmp_path / "in", tmp_path / "data")
    dataset = Dataset.load(tmp_path / "data")
    expected = EXPECTED.copy()
    expected[:3, :3] = 1
    np.testing.assert_array_equal(masks(dataset)["a"], expected)
    assert len(dataset) == 1
    assert any("unknown format" in reason for _, reason in report.skipped)
    assert pd.read_csv(tmp_path / "data/cases.csv")["mask"].tolist() == ["masks/a.png"]


def test_patients_come_from_a_pattern_or_are_derived(tmp_path: Path) -> None:
    for name in ("sub-1/a.png", "sub-2/b.png"):
        picture(tmp_path / name)
        write(
            tmp_path / name.replace("png", "json"),
            labelme({"points": CORNERS, "shape_type": "polygon"}, name=Path(name).name),
        )
    import_annotations(tmp_path, tmp_path / "derived")
    derived = Dataset.load(tmp_path / "derived")
    assert derived.cases["patient_id"].tolist() == ["sub-1", "sub-2"]
    assert derived.spec.patients_from == "subject names"
    import_annotations(tmp_path, tmp_path / "given", patient_pattern=r"(\w)\.png")
    given = Dataset.load(tmp_path / "given")
    assert given.cases["patient_id"].tolist() == ["a", "b"]
    assert given.spec.patients_from is None


def test_a_polygon_of_coco_without_the_list_around_it(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write(tmp_path / "a.json", coco({"segmentation": FLAT}))
    report = import_annotations(tmp_path / "a.json", tmp_path / "out")
    assert report.masks == 1
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "masks" / "a.png", 1), EXPECTED)


def test_spellings_of_a_label_are_one_mask_class(tmp_path: Path) -> None:
    shape = {"points": CORNERS, "shape_type": "polygon"}
    for name, label in (("a", "Polyp"), ("b", "polyp "), ("c", "Polyp")):
        picture(tmp_path / f"{name}.png")
        write(tmp_path / f"{name}.json", labelme({**shape, "label": label}, name=f"{name}.png"))
    report = import_annotations(tmp_path, tmp_path / "out")
    assert Dataset.load(tmp_path / "out").spec.mask_classes == ["Polyp"]
    assert report.masks == 3
    assert told(report, "'polyp' read as 'Polyp'")


def test_categories_without_a_name_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write(tmp_path / "a.json", coco({"segmentation": [FLAT], "category_id": 9}))
    report = import_annotations(tmp_path / "a.json", tmp_path / "out")
    assert told(report, "the file does not list: category 9")


def test_a_folder_with_annotations_is_imported_with_them(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "images" / "a.png")
    path = write(tmp_path / "in" / "all.json", coco({"segmentation": [FLAT]}))
    layout = find_layout(tmp_path / "in")
    assert layout.importer == "annotations"
    assert layout.command.split()[3] == str(path)
    report = import_annotations(path, tmp_path / "out", images_root=tmp_path / "in", dry_run=True)
    assert (report.masks, report.dry_run) == (1, True)
    assert not (tmp_path / "out").exists()
