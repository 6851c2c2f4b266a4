"""Synthetic breast ultrasound, for demonstrations and tests: phantoms, never patients.

The image formation follows the standard statistical model of B-mode ultrasound:

* **Fully developed speckle.** Many scatterers in each resolution cell sum to a circular complex
  Gaussian field (Goodman, "Statistical properties of laser speckle patterns", 1975; for
  ultrasound Burckhardt, "Speckle in ultrasound B-mode scans", IEEE Trans. Sonics Ultrason. 25:1-6,
  1978). The amplitude follows the local echogenicity.
* **Point-spread function.** The field is convolved with a Gaussian pulse, short along the beam and
  wider across it, widest away from the focus. It sets the size of the speckle grains (Wagner,
  Smith, Sandrik, Lopez, "Statistics of speckle in ultrasound B-scans", IEEE Trans. Sonics
  Ultrason. 30:156-163, 1983). We work at baseband, so the pulse has no carrier.
* **Attenuation** accumulates along the beam, in dB. Time-gain compensation undoes that of average
  tissue, and not perfectly. What lies behind a weak attenuator is therefore too bright, behind a
  strong one too dark: posterior enhancement and shadowing come from the physics, not from paint.
* **Envelope, log compression** to 50-60 dB and eight bits, with electronic noise growing in depth.

The anatomy is a caricature: skin, subcutaneous fat with Cooper's ligaments, fibroglandular tissue
with fat lobules, pectoral muscle, chest wall. *Benign* lesions are smooth, wider than tall,
hypoechoic ellipses that attenuate little. *Malignant* ones are irregular, spiculated and attenuate
much. *Normal* images have neither, but every image has distractors: fat lobules as dark as many a
lesion, ligaments that cast shadows, poor contact at the edges, if wanted simple cysts. See
`dxseg.phantoms.anatomy`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from scipy.ndimage import label as connected_pieces

from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.data.table.spec import SPEC_FILE
from dxseg.errors import UsageError
from dxseg.phantoms.anatomy import DEPTH_MM, Map, Scene, draw_scene

PROVENANCE = "synthetic phantom"
LABELS = ["normal", "benign", "malignant"]
# Images are formed at twice their size: speckle must be sampled finely enough before the envelope.
OVERSAMPLING = 2
AXIAL_MM = 0.16
LATERAL_MM = 0.26
DEFOCUS_MM = 0.38


def make_phantoms(
    destination: str | Path,
    *,
    images: int = 300,
    size: int = 128,
    seed: int = 0,
    cysts: float = 0.0,
) -> Dataset:
    """Write a dataset of phantoms: images, masks of all lesions, cases.csv and dataset.yaml.

    A quarter is normal, the rest half benign, half malignant. Image i depends only on i and on what
    is given here apart from `images`, so a larger set starts with the smaller one.

    Args:
        destination: Output folder, created if absent.
        images: Number of images; at most 9999.
        size: Height and width in pixels, 64 to 1024, for 40 mm of tissue.
        seed: Random seed; same seed, same pixels.
        cysts: Mean number of simple cysts in an image of any label, 0 to 10: they look like lesions
            and are not, which makes the task harder.

    Returns:
        The dataset. Images are 8-bit gray PNG, masks 0/255 PNG, spacing is in mm, every image is
        a separate patient.

    Raises:
        UsageError: A number is out of range.
    """
    for name, value, low, high in (
        ("images", images, 1, 9999),
        ("size", size, 64, 1024),
        ("cysts", cysts, 0, 10),
    ):
        if not low <= value <= high:
            raise UsageError(f"{name} {value}: expected {low} to {high}")
    if seed < 0:
        raise UsageError(f"seed {seed}: expected 0 or more")
    root = Path(destination)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    # Until the new set is complete the folder is no dataset, whatever was in it before.
    (root / SPEC_FILE).unlink(missing_ok=True)
    rows = []
    for number in range(1, images + 1):
        case_id, label = f"phantom_{number:04d}", label_of(number)
        image, mask = make_phantom(label, size=size, seed=(seed, number), cysts=cysts)
        row = {"case_id": case_id, "image": f"images/{case_id}.png", "mask": "", "label": label}
        # Plain writes: flushing a file to disk can cost more than forming it.
        Image.fromarray(image).save(root / row["image"])
        if label != LABELS[0]:
            row["mask"] = f"masks/{case_id}.png"
            Image.fromarray(mask * np.uint8(255)).save(root / row["mask"])
        rows.append(row)
    table = pd.DataFrame(rows)
    table["patient_id"] = table["case_id"]
    table["spacing_y"] = table["spacing_x"] = DEPTH_MM / size
    spec = DatasetSpec(
        name="phantoms",
        modality="ultrasound",
        labels=LABELS,
        lesion_free=LABELS[:1],
        spacing_unit="mm",
        provenance=PROVENANCE,
        licence="CC0-1.0",
    )
    return Dataset.create(root, spec, table)


def label_of(number: int) -> str:
    """Label of image 1, 2, ...: of each eight, 2 are normal, 3 benign, 3 malignant."""
    return LABELS[(0, 1, 2, 1, 2, 0, 1, 2)[(number - 1) % 8]]


def make_phantom(
    label: str, *, size: int, seed: tuple[int, ...], cysts: float = 0.0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Form one image.

    Args:
        label: normal, benign or malignant.
        size: Height and width in pixels.
        seed: Non-negative numbers that seed everything random.
        cysts: Mean number of simple cysts, whatever the label.

    Returns:
        Image (size, size), 0..255, and mask (size, size), 0 or 1.
    """
    rng = np.random.default_rng(seed)
    scene = draw_scene(label, size * OVERSAMPLING, rng, cysts=cysts)
    decibels = _form(scene, rng)
    gray = np.clip(_shrink(decibels) * 255, 0, 255).astype(np.uint8)
    return gray, _largest(_shrink(scene.lesion.astype(np.float32)) >= 0.5)


def _form(scene: Scene, rng: np.random.Generator) -> Map:
    """Form the log-compressed image of a scene, 0..1 within the displayed dynamic range."""
    count = scene.echogenicity.shape[0]
    pixel = DEPTH_MM / count
    depth: Map = (np.arange(count, dtype=np.float32)[:, None] + 0.5) * pixel
    # A beam is wider than a pixel: what attenuates it is averaged across its width.
    path = gaussian_filter1d(scene.attenuation, 0.5 / pixel, axis=1, mode="nearest")
    lost = np.cumsum(path, axis=0) * pixel
    compensated = scene.compensation * depth
    amplitude = _amplitude(scene.echogenicity + scene.gain - lost + compensated)
    width = LATERAL_MM + DEFOCUS_MM * np.abs(depth - scene.focus) / DEPTH_MM

    field = _blur_across(_speckle(amplitude, rng, pixel), width / pixel)
    field += _speckle(_amplitude(scene.noise_floor + compensated), rng, pixel)
    shown = 20 * np.log10(np.abs(field) + np.float32(1e-9)) / scene.dynamic_range
    return np.clip(shown + scene.brightness, 0, 1)


def _amplitude(decibels: Map) -> Map:
    """Turn dB of power into amplitude."""
    amplitude: Map = np.exp(decibels * np.float32(np.log(10) / 20))
    return amplitude


def _speckle(amplitude: Map, rng: np.random.Generator, pixel: float) -> NDArray[np.complex64]:
    """Draw circular Gaussian scatterers and convolve them with the pulse along the beam.

    Args:
        amplitude: Root mean square of the field, (N, N) or (N, 1); the pulse keeps the power.
        rng: Source of the scatterers.
        pixel: Pixel size in mm.
    """
    count = amplitude.shape[0]
    parts = rng.standard_normal((2, count, count), np.float32) * amplitude
    sigma = AXIAL_MM / pixel
    parts = gaussian_filter1d(parts, sigma, axis=1, mode="reflect", truncate=3)
    # The squares of a normalized Gaussian kernel sum to 1 / (2 sqrt(pi) sigma).
    parts *= np.float32(np.sqrt(np.sqrt(np.pi) * sigma))
    field = np.empty((count, count), np.complex64)
    field.real, field.imag = parts
    return field


def _blur_across(field: NDArray[np.complex64], sigma: Map) -> NDArray[np.complex64]:
    """Convolve each row with a Gaussian of its own width, keeping the mean power.

    Args:
        field: (N, N).
        sigma: Standard deviation for each row in pixels, (N, 1).
    """
    reach = int(np.ceil(3 * sigma.max()))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1)[None] / sigma) ** 2)
    kernel /= np.sqrt((kernel**2).sum(axis=1, keepdims=True))
    padded = np.pad(field, ((0, 0), (reach, reach)), mode="reflect")
    windows = sliding_window_view(padded, 2 * reach + 1, axis=1)
    blurred: NDArray[np.complex64] = np.einsum("ywk,yk->yw", windows, kernel.astype(np.float32))
    return blurred


def _shrink(picture: Map) -> Map:
    """Average blocks of OVERSAMPLING x OVERSAMPLING pixels."""
    count = picture.shape[0] // OVERSAMPLING
    blocks = picture.reshape(count, OVERSAMPLING, count, OVERSAMPLING)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Keep the largest piece: the grid may cut the tip of a spicule off."""
    pieces, count = connected_pieces(mask)
    if count < 2:
        return mask.astype(np.uint8)
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1, np.uint8)
