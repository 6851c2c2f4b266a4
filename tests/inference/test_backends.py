"""Every backend says what PyTorch says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dxseg import export_onnx
from dxseg.data.readers.images import read_image
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.backends import ONNX_BACKENDS, TorchBackend
from dxseg.inference.load import PARITY, load_backend
from dxseg.inference.model_folder import load_model_folder
from dxseg.inference.predictor import Predictor
from onnx_models import make_model_folder

# One of each architecture, the network that has labels but never learnt them, and a classifier
# beside a network.
METHODS = (
    *("sks-evidence", "sks-no-labels", "unet", "unetplusplus", "manet", "unet-multitask"),
    "unet-classifier",
)
TOLERANCE = 1e-4
"""Of a probability, on images; what `docs/export.md` states."""
REDUCED_TOLERANCE = 0.05
"""The same in bfloat16."""

each_method = pytest.mark.parametrize("method", METHODS)
each_runtime = pytest.mark.parametrize("backend", list(ONNX_BACKENDS))


@pytest.fixture(scope="module")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("model_folders")
    return {method: make_model_folder(folder / method, method) for method in METHODS}


@pytest.fixture(scope="module")
def exported(
    model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    for method, model_folder in model_folders.items():
        export_onnx(model_folder, output=folder / f"{method}.onnx")
    return {method: folder / f"{method}.onnx" for method in model_folders}


@pytest.fixture(scope="module")
def predictors(exported: dict[str, Path]) -> Callable[[str, str], Predictor]:
    """Those of exported methods with a backend; each is loaded once."""

    @cache
    def load(method: str, backend: str) -> Predictor:
        return Predictor.from_folder(exported[method], batch_size=4, backend=backend)

    return load


@pytest.fixture(scope="module")
def images(phantoms: Path) -> list[np.ndarray]:
    data = Dataset.load(phantoms)
    found = [read_image(data.image_path(row)) for row in data.cases.head(4).itertuples()]
    return [*found, found[0][:40], found[1][:, :23]]


def assert_alike(one: Predictor, other: Predictor, images: list, known=None, atol=TOLERANCE):
    for wanted, found in zip(one.predict(images, known), other.predict(images, known), strict=True):
        np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=atol)
        # A known label moves the threshold with the image's peak, so that no pixel is sure.
        near = atol if known is None else 1.0
        sure = abs(wanted.probabilities - one.info.threshold).min(axis=0) > near
        assert (found.mask == wanted.mask)[sure].all()
        if atol == TOLERANCE:
            assert (found.mask != wanted.mask).mean() <= 0.001
        assert found.label_probabilities == (
            None
            if wanted.label_probabilities is None
            else pytest.approx(wanted.label_probabilities, abs=atol)
        )
        if wanted.evidence is None:
            assert found.evidence is None
        else:
            np.testing.assert_allclose(found.evidence, wanted.evidence, atol=atol)


@each_runtime
@each_method
def test_an_exported_model_predicts_as_its_model_folder_does(
    model_folders, predictors, images, method, backend
):
    torch_predictor = Predictor.from_folder(model_folders[method], batch_size=4)
    assert_alike(torch_predictor, predictors(method, backend), images)
    masks = [prediction.probabilities.ravel() for prediction in torch_predictor.predict(images)]
    assert np.ptp(np.concatenate(masks)) > 100 * TOLERANCE, "alike must mean something"


@each_runtime
def test_a_known_label_reaches_the_exported_network(model_folders, predictors, images, backend):
    known = ["malignant", "benign", "normal", "", "malignant", ""]
    one = Predictor.from_folder(model_folders["sks-evidence"])
    other = predictors("sks-evidence", backend)
    assert_alike(one, other, images, known)
    told, untold = (other.predict(images[:1], given)[0] for given in (["malignant"], None))
    assert abs(told.evidence - untold.evidence).max() > 100 * TOLERANCE


@each_runtime
def test_a_model_of_several_labels_and_classes(tmp_path, images, backend):
    changes = {"multi_label": True, "mask_classes": ["cyst", "tumour"]}
    model_folder = make_model_folder(tmp_path, "sks-evidence", **changes)
    one, other = (
        Predictor.from_folder(model_folder),
        Predictor.from_folder(model_folder, backend=backend),
    )
    assert_alike(one, other, images, ["benign;malignant", "", "", "", "", ""])


@each_runtime
@each_method
@pytest.mark.parametrize("shape", [(1, 1, 32, 64), (3, 1, 96, 160), (2, 1, 50, 70)])
def test_batches_of_any_number_and_size(model_folders, predictors, method, backend, shape):
    segmenter, _ = load_model_folder(model_folders[method])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    wanted = TorchBackend(segmenter).forward(x)
    found = predictors(method, backend).backend.forward(x)
    for name in ("mask_logits", "label_logits", "evidence"):
        one, other = getattr(wanted, name), getattr(found, name)
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one, atol=1e-3, rtol=1e-3)


def test_the_tolerance_of_the_export_itself_is_no_wider_than_stated():
    assert TOLERANCE <= PARITY <= 1e-3


@pytest.mark.parametrize("method", ["sks-evidence", "unet"])
def test_bfloat16_stays_within_its_tolerance(model_folders, images, method):
    exact = Predictor.from_folder(model_folders[method])
    for backend in ("torch", "openvino"):
        reduced = Predictor.from_folder(
            model_folders[method], backend=backend, precision="bfloat16"
        )
        assert_alike(exact, reduced, images, atol=REDUCED_TOLERANCE)
    [one], [other] = exact.predict(images[:1]), reduced.predict(images[:1])
    assert one.probabilities.dtype == other.probabilities.dtype == np.float32


def test_a_mirrored_image_gives_the_mirrored_mask(model_folders, images):
    predictor = Predictor.from_folder(model_folders["sks-evidence"], flip=True)
    [one, other] = predictor.predict([images[0], np.ascontiguousarray(images[0][:, ::-1])])
    np.testing.assert_allclose(one.probabilities, other.probabilities[..., ::-1], atol=1e-5)


def test_what_cannot_be_had_is_said(model_folders, exported, tmp_path):
    model_folder, file = model_folders["unet"], exported["unet"]
    for refused, expected in [
        (partial(load_backend, model_folder, "tensorrt"), "torch, onnxruntime, openvino"),
        (partial(load_backend, file, "torch"), "model folder"),
        (partial(load_backend, file, None, "cuda"), "expected cpu"),
        (partial(load_backend, file, "onnxruntime", "cpu", "bfloat16"), "openvino"),
        (partial(load_backend, model_folder, "torch", "cpu", "int4"), "float32, bfloat16"),
    ]:
        with pytest.raises(UsageError, match=expected):
            refused()
    with pytest.raises(DxsegError, match="cannot be read"):
        load_backend(tmp_path / "none.onnx")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_backend_that_is_not_installed_names_the_extra(model_folders, monkeypatch, backend):
    monkeypatch.setitem(__import__("sys").modules, backend, None)
    with pytest.raises(UsageError, match=r"pip install 'dxseg\["):
        load_backend(model_folders["unet"], backend)


SIGNALLED = """
import gc, signal, sys
from dxseg.inference.load import load_backend

received = []
signal.signal(signal.SIGUSR1, lambda *_: received.append(True))
first, second = (load_backend(sys.argv[1], "openvino") for _ in range(2))
del first
gc.collect()
del second
gc.collect()
signal.raise_signal(signal.SIGUSR1)
assert received
"""


def test_a_signal_after_the_last_model_of_openvino_is_handled(exported: dict[str, Path]) -> None:
    """OpenVINO's core sets a stack for signal handlers, and frees it: this was a crash."""
    command = [sys.executable, "-c", SIGNALLED, str(exported["unet"])]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.real_data
@each_runtime
@pytest.mark.parametrize("method", ["sks-evidence", "unet"])
def test_parity_on_busi(busi_root, model_folders, exported, method, backend):
    files = sorted(busi_root.rglob("*).png"))[::100]
    assert len(files) > 5
    one, other = (
        Predictor.from_folder(model_folders[method]),
        Predictor.from_folder(exported[method], backend=backend),
    )
    assert_alike(one, other, [read_image(path) for path in files])
