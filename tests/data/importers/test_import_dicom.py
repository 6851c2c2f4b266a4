"""A PACS export becomes a dataset: what it shows, whose it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, generate_uid

from dicom_phantom import plain_segmentation, segmentation
from dxseg.commands.import_dicom import import_dicom
from dxseg.commands.import_volumes import import_volumes
from dxseg.data.readers.dicom import image as decoding
from dxseg.data.readers.images import read_image
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset as Images
from dxseg.errors import DxsegError, UsageError

Make = Callable[..., Any]
Store = Callable[..., Path]


def picture(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (12, 9), dtype=np.uint8)


@pytest.fixture
def ultrasound(image: Make) -> list[Dataset]:
    """Two patients, three studies, four images."""
    studies = [generate_uid() for _ in range(3)]
    owners = [("P1", 0), ("P1", 0), ("P1", 1), ("P2", 2)]
    return [
        image(
            picture(number),
            PatientID=patient,
            StudyInstanceUID=studies[study],
            AccessionNumber=f"A{study}",
        )
        for number, (patient, study) in enumerate(owners)
    ]


def by_pixels(dataset: Images) -> dict[int, Any]:
    """The rows in the order of `picture`'s seeds."""
    rows = {}
    for row in dataset.cases.itertuples():
        pixels = read_image(dataset.image_path(row))[:, :, 0]
        [seed] = [seed for seed in range(6) if np.array_equal(pixels, picture(seed))]
        rows[seed] = row
    return rows


def table(path: Path, **columns: list[str]) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_images_keep_pixels_and_their_patients_stay_apart(
    ultrasound: list[Dataset], store: Store, tmp_path: Path
) -> None:
    report = import_dicom(store(ultrasound), tmp_path / "data", name="thyroid")
    dataset = Images.load(tmp_path / "data")
    rows = by_pixels(dataset)
    assert sorted(rows) == [0, 1, 2, 3]
    assert (report.images, report.masks, report.labels) == (4, 0, {"": 4})
    assert (dataset.spec.name, dataset.spec.modality, dataset.spec.roots) == ("thyroid", "US", [])
    assert dataset.spec.spacing_unit == "pixel"
    patients = [rows[seed].patient_id for seed in range(4)]
    assert patients[0] == patients[1] == patients[2] != patients[3]


@pytest.mark.parametrize(
    ("keys", "labels", "level"),
    [
        ({"patient": ["P1", "P2"]}, ["benign", "benign", "benign", "normal"], "study"),
        ({"accession": ["A0", "A2"]}, ["benign", "benign", "", "normal"], "study"),
        ({"accession": ["A0", "A2"]}, ["benign", "benign", "", "normal"], "image"),
        ({"instance": [1, 3]}, ["", "benign", "", "normal"], "image"),
        ({"patient": ["P1", "P2"], "accession": ["A1", "A2"]}, ["", "", "benign", "normal"], ""),
    ],
)
def test_a_table_labels_images_or_studies(
    ultrasound: list[Dataset],
    store: Store,
    tmp_path: Path,
    keys: dict[str, Any],
    labels: list[str],
    level: str,
) -> None:
    if "instance" in keys:
        keys = {"instance": [ultrasound[index].SOPInstanceUID for index in keys["instance"]]}
    csv = table(tmp_path / "labels.csv", **keys, label=["benign", "normal"])
    explicit = "image" if level == "image" and "instance" not in keys else None
    import_dicom(
        store(ultrasound),
        tmp_path / "data",
        labels=csv,
        lesion_free=["normal"],
        label_level=explicit,
    )
    dataset = Images.load(tmp_path / "data")
    rows = by_pixels(dataset)
    assert [rows[seed].label for seed in range(4)] == labels
    told = level or "study"
    assert [rows[seed].label_level for seed in range(4)] == [told if x else "" for x in labels]
    assert dataset.spec.labels == ["benign", "normal"]
    assert dataset.spec.lesion_free == ["normal"]


def test_a_table_with_other_column_names(
    ultrasound: list[Dataset], store: Store, tmp_path: Path
) -> None:
    csv = table(tmp_path / "labels.csv", PatID=["P2", "P9"], Dx=["cancer", "cancer"])
    report = import_dicom(
        store(ultrasound),
        tmp_path / "data",
        labels=csv,
        label_columns={"patient": "PatID", "label": "Dx"},
    )
    assert report.labels == {"": 3, "cancer": 1}
    assert any("1 rows match no volume: lines 3" in note for note in report.notes)


def test_color_deep_and_moving_images(image: Make, store: Store, tmp_path: Path) -> None:
    color = np.random.default_rng(7).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    moving = np.stack([picture(seed) for seed in range(3)])
    import_dicom(store([image(color), image(moving)]), tmp_path / "data")
    cases = Images.load(tmp_path / "data").cases
    frames = cases[cases["volume_id"].ne("")]
    assert frames["slice_index"].tolist() == [0, 1, 2]
    assert frames["volume_id"].nunique() == 1
    for seed, name in enumerate(frames["image"]):
        assert np.array_equal(read_image(tmp_path / "data" / name)[:, :, 0], picture(seed))
    [name] = cases.loc[cases["volume_id"].eq(""), "image"]
    assert np.array_equal(read_image(tmp_path / "data" / name), color)

    deep = np.random.default_rng(8).integers(0, 65536, (12, 9), dtype=np.uint16)
    import_dicom(store([image(deep)], "deep"), tmp_path / "deep data")
    [name] = Images.load(tmp_path / "deep data").cases["image"]
    assert np.array_equal(read_image(tmp_path / "deep data" / name)[:, :, 0], deep)


def test_masks_stored_as_images_are_asked_about(image: Make, store: Store, tmp_path: Path) -> None:
    mask = np.zeros((12, 9), np.uint8)
    mask[3:8, 2:6] = 255
    export = store([image(picture(0)), image(mask)])
    report = import_dicom(export, tmp_path / "asked")
    assert report.images == 1
    assert "looks like a mask" in report.skipped[0][1]
    assert report.failed
    kept = import_dicom(export, tmp_path / "kept", keep_mask_like=True)
    assert (kept.images, kept.failed) == (2, [])


def region(unit: int) -> Dataset:
    ds = Dataset()
    ds.PhysicalUnitsXDirection = ds.PhysicalUnitsYDirection = unit
    ds.PhysicalDeltaX, ds.PhysicalDeltaY = 0.01, 0.02
    return ds


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [
        ({"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [9, 9]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
        ({"SequenceOfUltrasoundRegions": [region(3)]}, (0.2, 0.1)),
        ({"SequenceOfUltrasoundRegions": [region(4)]}, None),
        ({"SequenceOfUltrasoundRegions": [region(3), region(3)]}, None),
        ({"PixelSpacing": [0, 0]}, None),
    ],
)
def test_spacing_is_in_millimeters_or_unknown(
    image: Make, store: Store, tmp_path: Path, attributes: Any, spacing: Any
) -> None:
    import_dicom(store([image(picture(0), **attributes)]), tmp_path / "data")
    dataset = Images.load(tmp_path / "data")
    assert dataset.spec.spacing_unit == ("mm" if spacing else "pixel")
    found = dataset.cases[["spacing_y", "spacing_x"]].to_numpy()[0]
    assert found == pytest.approx(spacing or (np.nan, np.nan), nan_ok=True)


def test_only_an_image_that_a_row_names_has_a_label_of_its_own(
    ultrasound: list[Dataset], image: Make, store: Store, tmp_path: Path
) -> None:
    loops = [
        image(np.stack([picture(seed), picture(seed + 1)]), PatientID="P3") for seed in (10, 20)
    ]
    named = [ultrasound[3], *loops]
    csv = table(
        tmp_path / "labels.csv",
        patient=["P1", "", "", ""],
        instance=["", *(ds.SOPInstanceUID for ds in named)],
        label=["malignant", "benign", "benign", "normal"],
    )
    import_dicom(
        store([*ultrasound, *loops]), tmp_path / "data", labels=csv, lesion_free=["normal"]
    )
    cases = Images.load(tmp_path / "data").cases
    found = cases.groupby(["label", "label_level"]).size().to_dict()
    assert found == {
        ("malignant", "study"): 3,
        ("benign", "image"): 1,
        ("benign", "study"): 2,
        ("normal", "image"): 2,
    }


def test_a_segmentation_becomes_the_mask_of_its_image(
    ultrasound: list[Dataset], store: Store, tmp_path: Path
) -> None:
    mask = np.zeros((12, 9), np.uint8)
    mask[2:7, 3:6] = 1
    objects = [*ultrasound, plain_segmentation(ultrasound[2], mask)]
    report = import_dicom(store(objects), tmp_path / "data", regions={"lesion": "nodule"})
    dataset = Images.load(tmp_path / "data")
    assert (report.masks, dataset.spec.mask_classes) == (1, ["nodule"])
    row = by_pixels(dataset)[2]
    assert np.array_equal(read_mask(dataset.mask_path(row), 1), mask)


def test_import_volumes_takes_the_series_of_an_export(
    ultrasound: list[Dataset], series: Make, store: Store, tmp_path: Path, phantom: Any
) -> None:
    sources = series(phantom)
    lesions = {number: np.zeros(phantom.shape, np.uint8) for number in (1, 2)}
    lesions[1][1, 2, 2] = lesions[2][4, 3, 5] = 1
    folder = store([*ultrasound, *sources, segmentation(sources, lesions)])
    report = import_volumes(folder, tmp_path / "data", mask_values={2: "tumour"})
    assert (report.volumes, report.images) == (1, 6)
    labels = Images.load(tmp_path / "data").cases["label"].tolist()
    assert labels == ["no tumour"] * 4 + ["tumour", "no tumour"]
    with pytest.raises(DxsegError, match="no readable DICOM slice of a volume"):
        import_volumes(store(ultrasound, "US only"), tmp_path / "other")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("channels", {"ct": "_ct"}),
        ("masks_root", "."),
        ("mask_suffix", "_outline"),
        ("mask_replace", ("a", "b")),
        ("masks_by_voxel", True),
        ("ignore_value", 0),
        ("modality", "CT"),
        ("patient_pattern", "P."),
    ],
)
def test_options_of_files_of_volumes_are_refused_for_dicom(
    option: str, value: Any, series: Make, store: Store, tmp_path: Path, phantom: Any
) -> None:
    folder, name = store(series(phantom)), option.replace("channels", "channel").replace("_", "-")
    with pytest.raises(UsageError, match=f"SEG or RTSTRUCT objects .*: --{name} would have no"):
        import_volumes(folder, tmp_path / "data", **{option: folder if value == "." else value})
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("window", "liver"),
        ("axis", "axial"),
        ("neighbours", 1),
        ("lesion_classes", ["tumour"]),
        ("lesion_label", "tumour"),
        ("slice_labels_known", True),
    ],
)
def test_options_of_volumes_are_refused_for_images(
    option: str, value: Any, ultrasound: list[Dataset], store: Store, tmp_path: Path
) -> None:
    name = option.replace("classes", "class").replace("_", "-")
    with pytest.raises(UsageError, match=f"--{name} would have no effect"):
        import_dicom(store(ultrasound), tmp_path / "data", **{option: value})
    assert not (tmp_path / "data").exists()


def test_modalities_are_chosen_when_there_are_several(
    ultrasound: list[Dataset], image: Make, series: Make, store: Store, tmp_path: Path, phantom: Any
) -> None:
    mammogram = image(
        picture(4), Modality="MG", SOPClassUID=DigitalMammographyXRayImageStorageForPresentation
    )
    folder = store([*ultrasound, mammogram, *series(phantom)])
    with pytest.raises(UsageError, match="6 CT, 1 MG, 4 US; choose with --modality of"):
        import_dicom(folder, tmp_path / "data")
    with pytest.raises(UsageError, match="no image has it; there are 6 CT, 1 MG, 4 US"):
        import_dicom(folder, tmp_path / "data", modalities=["DX"])
    with pytest.raises(UsageError, match="import them as two datasets"):
        import_dicom(folder, tmp_path / "data", modalities=["US", "CT"])
    assert not (tmp_path / "data").exists()
    for modalities, images in ((["MG"], 1), (["US", "MG"], 5), (["CT"], 6)):
        name = "-".join(modalities)
        report = import_dicom(folder, tmp_path / name, modalities=modalities)
        assert report.images == images


def test_an_export_without_images_says_why(image: Make, store: Store, tmp_path: Path) -> None:
    report = image(picture(0))
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(report, keyword)
    with pytest.raises(DxsegError, match="first reason: file 1: Ultrasound Image Storage, not an"):
        import_dicom(store([report]), tmp_path / "data")
    with pytest.raises(DxsegError, match="no such folder"):
        import_dicom(tmp_path / "absent", tmp_path / "data")
    with pytest.raises(UsageError, match="is in the export"):
        import_dicom(tmp_path / "export", tmp_path / "export" / "data")


def test_burned_in_data_and_missing_patient_ids_are_warned_about(
    image: Make, store: Store, tmp_path: Path
) -> None:
    objects = [image(picture(0), BurnedInAnnotation="YES"), image(picture(1), PatientID="")]
    notes = "\n".join(import_dicom(store(objects), tmp_path / "data").notes)
    assert "WARNING: 1 object(s) declare patient data in the pixels" in notes
    assert "1 object(s) have no patient id" in notes
    patients = Images.load(tmp_path / "data").cases["patient_id"]
    assert sorted(name.partition("-")[0] for name in patients) == ["patient", "study"]


def test_the_same_key_gives_the_same_pseudonyms(
    ultrasound: list[Dataset], store: Store, tmp_path: Path
) -> None:
    folder, key = store(ultrasound), tmp_path / "hospital.key"
    for name in ("one", "two"):
        import_dicom(folder, tmp_path / name, key=key)
    import_dicom(folder, tmp_path / "three")
    tables = [Images.load(tmp_path / name).cases for name in ("one", "two", "three")]
    assert tables[0].equals(tables[1])
    assert not set(tables[0]["patient_id"]) & set(tables[2]["patient_id"])
    assert (tmp_path / "three.key").exists()


def test_a_dry_run_makes_no_key(ultrasound: list[Dataset], store: Store, tmp_path: Path) -> None:
    folder, key = store(ultrasound), tmp_path / "hospital.key"
    for _ in range(2):
        before = sorted(tmp_path.rglob("*"))
        report = import_dicom(folder, tmp_path / "data", key=key, dry_run=True)
        assert report.images == 4
        assert sorted(tmp_path.rglob("*")) == before
        import_dicom(folder, tmp_path / "data", key=key, overwrite=True)  # now there is one


def test_an_interrupted_import_leaves_no_dataset_and_may_be_started_again(
    ultrasound: list[Dataset], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, decode = store(ultrasound), decoding.displayed_frame
    calls: list[int] = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return decode(*arguments)

    monkeypatch.setattr("dxseg.data.importers.dicom_images.displayed_frame", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_dicom(folder, tmp_path / "data")
    with pytest.raises(DxsegError, match="not found; expected a dataset"):
        Images.load(tmp_path / "data")
    report = import_dicom(folder, tmp_path / "data")
    import_dicom(folder, tmp_path / "whole", key=tmp_path / "data.key")
    assert report.images == 4
    assert Images.load(tmp_path / "data").cases.equals(Images.load(tmp_path / "whole").cases)
    with pytest.raises(DxsegError, match="has the dataset"):
        import_dicom(folder, tmp_path / "data")


def test_links_are_not_followed(ultrasound: list[Dataset], store: Store, tmp_path: Path) -> None:
    outside = store(ultrasound[:1], "outside")
    folder = store(ultrasound[1:])
    (folder / "link.dcm").symlink_to(next(outside.iterdir()))
    (folder / "folder").symlink_to(outside, target_is_directory=True)
    report = import_dicom(folder, tmp_path / "data")
    assert (report.images, report.skipped) == (3, [])
