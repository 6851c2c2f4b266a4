"""Layouts of public datasets: which file is whose mask, and what is asked about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxseg.commands.app import run
from dxseg.commands.imports import import_folder
from dxseg.data.importers.folder import find_in_folders
from dxseg.data.importers.mask_owner import MaskNaming
from dxseg.data.importers.report import LeftOut
from dxseg.data.readers.mask_like import is_mask_like
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError

DISC = ((np.indices((24, 20)) - 11).__pow__(2).sum(0) < 30).astype(np.uint8) * np.uint8(255)


def write(root: Path, *names: str) -> Path:
    """Write files: noise, or a disc where the name starts with `*`."""
    rng = np.random.default_rng(0)
    for name in names:
        path = root / name.removeprefix("*")
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (24, 20), np.uint8)
        Image.fromarray(DISC if name.startswith("*") else noise).save(path)
    return root


def pairs(
    root: Path, masks_root: Path | None = None, suffix: str | None = None, keep: bool = False
) -> tuple[dict[str, list[str]], list[str], dict[str, str]]:
    left_out = LeftOut()
    found = find_in_folders(
        root, masks_root, MaskNaming(suffix), root / "out", left_out, keep_mask_like=keep
    )
    named = {
        str(case.image.relative_to(root)): [
            str(mask.relative_to(found.root)) for mask in case.masks
        ]
        for case in found.cases
    }
    return named, found.labels, {Path(file).name: reason for file, reason in left_out}


LAYOUTS = {
    "ISIC": (
        ["benign/ISIC_01.jpg", "*benign/ISIC_01_segmentation.png"],
        {"benign/ISIC_01.jpg": ["benign/ISIC_01_segmentation.png"]},
        ["benign"],
    ),
    "ISIC in two folders": (
        [
            "ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg",
            "*ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png",
        ],
        {
            "ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg": [
                "ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png"
            ]
        },
        [],
    ),
    "Kvasir": (["images/c0.jpg", "*masks/c0.jpg"], {"images/c0.jpg": ["masks/c0.jpg"]}, []),
    "splits": (
        ["train/images/1.png", "*train/masks/1.png", "test/images/1.png", "*test/masks/1.png"],
        {"test/images/1.png": ["test/masks/1.png"], "train/images/1.png": ["train/masks/1.png"]},
        [],
    ),
    "nnU-Net": (
        ["imagesTr/a_0000.png", "*labelsTr/a.png"],
        {"imagesTr/a_0000.png": ["labelsTr/a.png"]},
        [],
    ),
    "masks flat beside diagnoses": (
        ["images/mole/a.png", "images/nevus/b.png", "*masks/a_mask.png", "*masks/b_mask.png"],
        {"images/mole/a.png": ["masks/a_mask.png"], "images/nevus/b.png": ["masks/b_mask.png"]},
        ["mole", "nevus"],
    ),
    "masks in each diagnosis": (
        ["mole/images/a.png", "*mole/masks/a.png"],
        {"mole/images/a.png": ["mole/masks/a.png"]},
        ["mole"],
    ),
    "diagnoses with both": (
        ["mole_images/a.png", "*mole_masks/a.png", "cyst_images/a.png", "*cyst_masks/a.png"],
        {"cyst_images/a.png": ["cyst_masks/a.png"], "mole_images/a.png": ["mole_masks/a.png"]},
        ["cyst", "mole"],
    ),
    "flat, other case": (["a.JPG", "*a_Mask.PNG"], {"a.JPG": ["a_Mask.PNG"]}, []),
    "no separator": (["a.png", "*amask.png"], {"a.png": ["amask.png"]}, []),
    "prefix": (["img_1.png", "*mask_1.png"], {"img_1.png": ["mask_1.png"]}, []),
    "same name": (["a.jpg", "*a.png"], {"a.jpg": ["a.png"]}, []),
    "numbered": (
        ["x/a (1).png", "*x/a (1)_mask.png", "*x/a (1)_mask_1.png"],
        {"x/a (1).png": ["x/a (1)_mask.png", "x/a (1)_mask_1.png"]},
        ["x"],
    ),
    "a folder per case": (
        ["c1/image.png", "*c1/mask.png", "c2/image.png", "*c2/mask.png"],
        {"c1/image.png": ["c1/mask.png"], "c2/image.png": ["c2/mask.png"]},
        ["c1", "c2"],
    ),
    "PH2": (
        ["I2/I2_Dermoscopic_Image/I2.bmp", "*I2/I2_lesion/I2_lesion.bmp"],
        {"I2/I2_Dermoscopic_Image/I2.bmp": ["I2/I2_lesion/I2_lesion.bmp"]},
        ["I2"],
    ),
    "IDRiD": (
        [
            "1. Original Images/a. Training Set/I_1.jpg",
            "*2. All Segmentation Groundtruths/a. Training Set/1. Microaneurysms/I_1_MA.tif",
            "*2. All Segmentation Groundtruths/a. Training Set/2. Haemorrhages/I_1_HE.tif",
        ],
        {
            "1. Original Images/a. Training Set/I_1.jpg": [
                "2. All Segmentation Groundtruths/a. Training Set/1. Microaneurysms/I_1_MA.tif",
                "2. All Segmentation Groundtruths/a. Training Set/2. Haemorrhages/I_1_HE.tif",
            ]
        },
        [],
    ),
    "DRIVE without masks of the field of view": (
        ["training/images/21_training.tif", "*training/1st_manual/21_manual1.png"],
        {"training/images/21_training.tif": ["training/1st_manual/21_manual1.png"]},
        [],
    ),
    "a folder per patient": (
        [name for n in "123" for name in (f"IMD00{n}/a.png", f"*IMD00{n}/a_mask.png")],
        {f"IMD00{n}/a.png": [f"IMD00{n}/a_mask.png"] for n in "123"},
        [],
    ),
    "ATLAS": (
        [
            f"sub-r1_ses-1_space-MNI{end}"
            for end in ("_desc-T1_T1w.png", "_label-L_desc-T1lesion_mask.png")
        ],
        {
            "sub-r1_ses-1_space-MNI_desc-T1_T1w.png": [
                "sub-r1_ses-1_space-MNI_label-L_desc-T1lesion_mask.png"
            ]
        },
        [],
    ),
    "BIDS in two spaces": (
        [
            *("sub-1_T1w.png", "sub-1_space-MNI_T1w.png", "sub-2_T1w.png", "sub-2_T2w.png"),
            *("*sub-1_space-MNI_label-lesion_mask.png", "*sub-1_space-orig_desc-lesion_mask.png"),
            "*sub-2_T2w_label-lesion_msk.png",
        ],
        {
            "sub-1_T1w.png": ["sub-1_space-orig_desc-lesion_mask.png"],
            "sub-1_space-MNI_T1w.png": ["sub-1_space-MNI_label-lesion_mask.png"],
            "sub-2_T1w.png": [],
            "sub-2_T2w.png": ["sub-2_T2w_label-lesion_msk.png"],
        },
        [],
    ),
    "ISLES": (["sub-1_dwi.png", "*sub-1_msk.png"], {"sub-1_dwi.png": ["sub-1_msk.png"]}, []),
    "words of masks in names of images": (
        ["lesion_1.png", "*lesion_1_mask.png", "roi_2.png"],
        {"lesion_1.png": ["lesion_1_mask.png"], "roi_2.png": []},
        [],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    names, expected, labels = LAYOUTS[layout]
    assert pairs(write(tmp_path, *names)) == (expected, labels, {})


def test_what_looks_like_a_mask_is_asked_about(tmp_path: Path) -> None:
    root = write(tmp_path, "x/a.png", "*x/a_bin.png", "y/b.png", "y/b_2.png")
    found, _, left_out = pairs(root)
    assert found == {"x/a.png": [], "y/b.png": [], "y/b_2.png": []}
    assert "--mask-suffix" in left_out["a_bin.png"]
    assert "--keep-mask-like" in left_out["a_bin.png"]
    assert pairs(root, suffix="_bin")[0]["x/a.png"] == ["x/a_bin.png"]
    assert "x/a_bin.png" in pairs(root, keep=True)[0]
    root = write(tmp_path / "trees", "photos/a.png", "*drawn/a.png")
    assert "--masks-root" in pairs(root)[2]["a.png"]
    assert pairs(root / "photos", root / "drawn")[0] == {"a.png": ["drawn/a.png"]}


def test_draws_and_masks_without_image_are_named(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        *("a.png", "a_1.png", "*a_mask_1.png"),
        *("b.png", "*b_mask.png", "*b_seg.png"),
        *("c.jpg", "c.bmp", "*c_mask.png"),
        "*lost_mask.png",
    )
    found, _, left_out = pairs(root)
    assert not any(found.values())
    assert "2 images (a.png, a_1.png)" in left_out["a_mask_1.png"]
    assert "one of 2 of b.png" in left_out["b_seg.png"]
    assert "2 images (c.bmp, c.jpg)" in left_out["c_mask.png"]
    assert "without its image" in left_out["lost_mask.png"]
    for suffix, expected in (("_mask", ["b_mask.png"]), ("_seg", ["b_seg.png"])):
        assert pairs(root, suffix=suffix)[0]["b.png"] == expected


def test_a_mask_named_after_two_images_is_of_none(tmp_path: Path) -> None:
    masks, _, left_out = pairs(write(tmp_path, "lesion_1.png", "mask.png", "*mask_lesion_1.png"))
    assert masks == {"lesion_1.png": [], "mask.png": []}
    assert left_out == {
        "mask_lesion_1.png": "mask fits 2 images (lesion_1.png, mask.png); rename it"
    }


def test_exit_code_1_when_no_mask_is_used(tmp_path: Path) -> None:
    root = write(tmp_path / "s", "x/a.png", "*x/b_mask.png")
    assert run(["import", "folder", str(root), str(tmp_path / "o1")]) == 1
    assert Dataset.load(tmp_path / "o1").cases["mask"].tolist() == [""]
    write(root, "x/b.png")
    assert run(["import", "folder", str(root), str(tmp_path / "o2")]) == 0
    (root / "x/c.png").write_bytes(b"damaged")
    assert run(["import", "folder", str(root), str(tmp_path / "o3")]) == 1
    write(tmp_path, "*masks/z.png")
    with pytest.raises(DxsegError, match="no mask of any"):
        import_folder(root, tmp_path / "o4", masks_root=tmp_path / "masks")


def test_masks_of_itk_snap_flat_beside_diagnoses(tmp_path: Path) -> None:
    names = [f"{label}/{label} ({n}).png" for label in ("benign", "malignant") for n in range(3)]
    write(tmp_path, *(f"images/{name}" for name in names))
    write(tmp_path, *(f"*masks/{Path(name).stem}_segmentation.png" for name in names))
    report = import_folder(
        tmp_path / "images",
        tmp_path / "o1",
        masks_root=tmp_path / "masks",
        mask_suffix="_segmentation",
    )
    assert (report.images, report.masks, report.failed) == (6, 6, [])
    report = import_folder(tmp_path, tmp_path / "o2")
    assert (report.images, report.masks) == (6, 6)
    assert report.labels == {"benign": 3, "malignant": 3}


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_masks_look_like_masks_and_images_do_not(tmp_path: Path, quality: int) -> None:
    Image.fromarray(DISC).save(tmp_path / "a.jpg", quality=quality)
    assert is_mask_like(np.asarray(Image.open(tmp_path / "a.jpg"))[:, :, None])
    assert is_mask_like(DISC[:, :, None] // 255 * 2)
    assert is_mask_like(np.zeros((5, 5, 1), np.uint16))
    ramp = np.linspace(0, 255, 400).reshape(20, 20, 1).astype(np.uint8)
    assert not is_mask_like(ramp)
    assert not is_mask_like(np.full((5, 5, 3), 80, np.uint8))
    dark = np.zeros((40, 40, 1))
    dark[:20] = 1000 * np.random.default_rng(0).random((20, 40, 1))
    assert not is_mask_like(dark)
    assert not is_mask_like(-dark)
    assert not is_mask_like(np.full((4, 4, 1), np.nan))


def test_masks_without_any_image_are_warned_of(tmp_path: Path) -> None:
    root = write(tmp_path / "s", "x/a.png", "*x/strange.png")
    report = import_folder(root, tmp_path / "out")
    assert any("1 of 2 images examined look like masks: strange.png" in n for n in report.notes)


@pytest.mark.parametrize(
    "masks",
    [
        ["*masks/rater1/a.png", "*masks/rater2/a.png"],
        ["*a_mask_observer1.png", "*a_mask_observer2.png"],
        ["*1st_manual/a_manual1.png", "*mask/a_mask.png"],
    ],
)
def test_of_masks_of_several_readers_one_is_to_be_chosen(tmp_path: Path, masks: list[str]) -> None:
    image = "a.png" if "_mask_" in masks[0] else "images/a.png"
    found, _, left_out = pairs(write(tmp_path, image, *masks))
    assert found == {image: []}
    assert all("mask is one of 2 of a.png" in reason for reason in left_out.values())


def test_folders_that_do_not_fit_are_told_with_the_option_that_helps(tmp_path: Path) -> None:
    write(tmp_path, "CXR/a.png", "*Manual/left/a.png")
    _, _, left_out = pairs(tmp_path)
    assert "--masks-root" in left_out["a.png"]
    found, _, _ = pairs(tmp_path / "CXR", tmp_path / "Manual")
    assert found == {"a.png": ["Manual/left/a.png"]}
