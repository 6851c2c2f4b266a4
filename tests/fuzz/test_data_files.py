"""Every parser of data meets damaged files: pixels or our error, in bounded time and memory."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import RLELossless

from damage import attack, changed, damaged
from dicom_phantom import SQUARE, make_image, make_series, place, plain_segmentation, structure_set
from dxseg.config.presets import load_config, parse_overrides, read_config
from dxseg.data.exporters.nnunet_format import parse_json, read_description
from dxseg.data.importers.msd import Task
from dxseg.data.readers.dicom.headers import read_header
from dxseg.data.readers.dicom.masks import read_mask_object
from dxseg.data.readers.images import image_size, read_image
from dxseg.data.readers.label_maps import read_label_map
from dxseg.data.readers.masks import inspect_mask
from dxseg.data.readers.nifti import read_nifti
from dxseg.data.splits.split_table import parse_splits
from dxseg.data.table.dataset import Dataset
from dxseg.experiments.experiment import parse_experiment, read_experiment_text
from dxseg.server.uploads import inspect_upload, save_upload

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (12, 9), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (12, 9), dtype=np.uint16)
AFFINE = np.diag([0.5, 0.6, 3.0, 1.0])

SPEC = {
    "name": "d",
    "labels": ["benign", "normal"],
    "lesion_free": ["normal"],
    "spacing_unit": "mm",
}
CASES = (
    b"case_id,image,mask,label,patient_id,spacing_y,spacing_x,volume_id,slice_index\n"
    b'a,a.png,m.png,benign,P1,0.1,0.1,v,0\nb,"b, c.png",,normal,"P ""2""",,,,\n'
)
SPLITS = b"case_id,group,split,fold,use_mask\na,0,train,0,True\nb,1,validation,1,False\n"
STUDY = {
    "name": "trial",
    "dataset": "data",
    "masks": [15, 60],
    "folds": 3,
    "methods": [
        "unet",
        {"name": "wide", "base_method": "sks-evidence", "set": {"stage2": {"steps": 9}}},
    ],
    "reference": "unet",
    "hypotheses": [{"method": "wide", "against": "unet"}],
}
NNUNET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 2,
    "file_ending": ".png",
}
DECATHLON = {
    "name": "Liver",
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "liver", "2": "cancer"},
    "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    "test": ["./imagesTs/b.nii.gz"],
}


def encoded(array: Any, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format=kind, **options)
    return stream.getvalue()


def tiff(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


@cache
def images() -> list[bytes]:
    return [
        encoded(GRAY, "png"),
        encoded(GRAY > 99, "png"),
        encoded(np.stack([GRAY] * 3, -1), "jpeg"),
        encoded(GRAY, "bmp"),
        tiff(DEEP, compression="zlib", predictor=True),
        tiff(np.stack([GRAY] * 2), photometric="minisblack"),
        encoded(GRAY, "tiff", compression="tiff_lzw"),
    ]


@cache
def masks() -> list[bytes]:
    return [encoded(GRAY % 3, "png"), encoded(GRAY % 3, "bmp"), tiff(GRAY % 2)]


@cache
def volumes() -> list[bytes]:
    voxels = RNG.integers(-900, 900, (5, 4, 3)).astype(np.int16)
    return [nibabel.Nifti1Image(voxels.astype(kind), AFFINE).to_bytes() for kind in ("i2", "f4")]


@cache
def label_maps() -> list[bytes]:
    return [nibabel.Nifti1Image(RNG.integers(0, 3, (5, 4, 3), "u1"), AFFINE).to_bytes()]


def palette() -> Any:
    ds = make_image(GRAY % 4)
    ds.PhotometricInterpretation = "PALETTE COLOR"
    for color in ("Red", "Green", "Blue"):
        setattr(ds, f"{color}PaletteColorLookupTableDescriptor", [4, 0, 8])
        setattr(ds, f"{color}PaletteColorLookupTableData", bytes([0, 90, 180, 255]))
    return ds


@cache
def dicom() -> list[bytes]:
    gray, deep = make_image(GRAY), make_image(DEEP, WindowCenter=900, WindowWidth=300)
    packed = make_image(GRAY)
    packed.compress(RLELossless)
    return [_saved(ds) for ds in (gray, deep, packed, palette())]


@cache
def dicom_masks() -> list[bytes]:
    mask = plain_segmentation(make_image(GRAY), (GRAY > 128).astype(np.uint8))
    series = make_series(np.zeros((2, 9, 9)))
    contours = structure_set(series[:1], [place(series[0], SQUARE)])
    return [_saved(ds) for ds in (mask, contours)]


def _saved(ds: Any) -> bytes:
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def table_of(path: Path) -> Dataset:
    (path.parent / "dataset.yaml").write_text(yaml.safe_dump(SPEC))
    return Dataset.load(path.parent)


def splits_of(path: Path) -> object:
    (path.parent / "cases.csv").write_bytes(CASES)
    return parse_splits(path, table_of(path))


def spec_of(path: Path) -> Dataset:
    (path.parent / "cases.csv").write_bytes(CASES)
    return Dataset.load(path.parent)


def picture(path: Path) -> None:
    image_size(path)
    pixels = read_image(path)
    assert pixels.dtype in (np.uint8, np.uint16)
    assert pixels.ndim == 3


def upload(path: Path) -> object:
    kept = save_upload(io.BytesIO(path.read_bytes()), path.parent)
    try:
        return inspect_upload(kept, 2**24)
    finally:
        kept.unlink()


@dataclass(frozen=True)
class Parser:
    """How a kind of file is parsed, and whole ones: as bytes, as trees of values, or both."""

    name: str
    parse: Callable[[Path], object]
    whole: Callable[[], list[bytes]] = list
    trees: list[Any] = field(default_factory=list)
    write: Callable[[Any], str] = json.dumps

    def files(self) -> list[bytes]:
        return [*self.whole(), *(self.write(tree).encode() for tree in self.trees)]

    def attacks(self) -> st.SearchStrategy[bytes]:
        by_bytes = damaged(self.files())
        return by_bytes | changed(self.trees, self.write) if self.trees else by_bytes


def config_tree() -> Any:
    return load_config("cpu", "sks-evidence-selftrained").model_dump(mode="json")


PARSERS = {
    "image": Parser("x.png", picture, images),
    "mask": Parser("x.png", lambda path: inspect_mask(path, 2), masks),
    "NIfTI": Parser("x.nii", read_nifti, volumes),
    "NIfTI, compressed": Parser(
        "x.nii.gz", read_nifti, lambda: [gzip.compress(one) for one in volumes()]
    ),
    "NIfTI label map": Parser(
        "x.nii", lambda path: read_label_map(path, (AFFINE, (5, 4, 3))), label_maps
    ),
    "DICOM image (RLE and palettes too)": Parser("x.dcm", picture, dicom),
    "DICOM masks": Parser(
        "x.dcm", lambda path: read_mask_object(read_header(path, "x")), dicom_masks
    ),
    "cases.csv": Parser("cases.csv", table_of, lambda: [CASES]),
    "splits.csv": Parser("splits.csv", splits_of, lambda: [SPLITS]),
    "dataset.yaml": Parser("dataset.yaml", spec_of, trees=[SPEC], write=yaml.safe_dump),
    "dataset.json of nnU-Net": Parser(
        "dataset.json", lambda path: read_description(path.parent), trees=[NNUNET]
    ),
    "dataset.json of the Decathlon": Parser(
        "dataset.json", lambda path: parse_json(path, Task), trees=[DECATHLON]
    ),
    "config.yaml": Parser("config.yaml", read_config, trees=[config_tree()], write=yaml.safe_dump),
    "--set": Parser(
        "x",
        lambda path: parse_overrides([path.read_bytes().decode("utf-8", "replace")]),
        lambda: [b"model.decoder_channels=[8, 8, 8, 8, 8]", b"stage2.steps=5"],
    ),
    "experiment.yaml": Parser(
        "experiment.yaml",
        lambda path: parse_experiment(read_experiment_text(path), str(path)),
        trees=[STUDY],
        write=yaml.safe_dump,
    ),
    "upload": Parser("x", upload, lambda: [*images(), *dicom()]),
}


@pytest.mark.parametrize("kind", PARSERS)
def test_whole_files_are_read(kind: str, tmp_path: Path) -> None:
    """Else the damage would be done to what is refused anyway."""
    parser = PARSERS[kind]
    for content in parser.files():
        (tmp_path / parser.name).write_bytes(content)
        parser.parse(tmp_path / parser.name)


@pytest.mark.parametrize("kind", PARSERS)
@pytest.mark.parametrize("examples", [20, pytest.param(3000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused(
    kind: str, examples: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    parser = PARSERS[kind]
    folder = tmp_path_factory.mktemp("fuzz")

    @settings(max_examples=examples, derandomize=True, database=None)
    @given(content=parser.attacks())
    def run(content: bytes) -> None:
        attack(folder / parser.name, content, parser.parse)

    run()
