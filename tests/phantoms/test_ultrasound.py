"""Phantoms: the speckle statistics of the literature, the promised anatomy, determinism."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import label as components
from scipy.ndimage import zoom

from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.phantoms.anatomy import DEPTH_MM, Scene, draw_scene
from dxseg.phantoms.ultrasound import _blur_across, _speckle, label_of, make_phantom, make_phantoms


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_phantoms(tmp_path_factory.mktemp("phantoms"), images=24, seed=3)


def pixels(path: Path | None) -> NDArray[np.uint8]:
    assert path is not None
    return np.asarray(Image.open(path))


def test_speckle_is_fully_developed() -> None:
    """Amplitude is Rayleigh: mean over deviation is 1.91; log-compressed it deviates by 5.57 dB."""
    rng = np.random.default_rng(0)
    field = _speckle(np.full((512, 512), 0.5, np.float32), rng, pixel=0.15)
    field = _blur_across(field, np.full((512, 1), 2.0, np.float32))
    envelope = np.abs(field)
    assert envelope.mean() / envelope.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.02)
    assert (20 * np.log10(envelope)).std() == pytest.approx(5.57, rel=0.02)
    assert np.mean(envelope**2) == pytest.approx(0.25, rel=0.03)


def test_speckle_grains_are_wider_than_deep() -> None:
    rng = np.random.default_rng(0)
    field = _speckle(np.ones((512, 512), np.float32), rng, pixel=0.15)
    field = _blur_across(field, np.full((512, 1), 3.0, np.float32))

    def correlation(down: int, across: int) -> float:
        moved = field[down:, across:]
        return float(np.abs(np.mean(moved * field[: len(moved), : moved.shape[1]].conj())))

    # Autocorrelation of a Gaussian pulse of deviation s at lag d is exp(-d^2 / (4 s^2)).
    assert correlation(0, 3) == pytest.approx(np.exp(-(3**2) / (4 * 3.0**2)), abs=0.05)
    assert correlation(2, 0) == pytest.approx(np.exp(-((2 * 0.15) ** 2) / (4 * 0.16**2)), abs=0.05)


def test_what_is_written_is_what_the_table_says(dataset: Dataset) -> None:
    cases = Dataset.load(dataset.root).cases
    assert cases["case_id"].iloc[0] == "phantom_0001"
    assert cases["label"].value_counts().to_dict() == {"benign": 9, "malignant": 9, "normal": 6}
    assert cases["patient_id"].is_unique
    assert dataset.spec.provenance == "synthetic phantom"
    for row in cases.itertuples():
        image = pixels(dataset.image_path(row))
        assert image.shape == (128, 128)
        assert image.dtype == np.uint8
        if row.label == "normal":
            assert dataset.mask_path(row) is None
            continue
        mask = pixels(dataset.mask_path(row))
        assert set(np.unique(mask)) == {0, 255}
        assert 0.002 < (mask > 0).mean() < 0.35


def test_same_seed_same_pixels_and_larger_sets_begin_alike(
    dataset: Dataset, tmp_path: Path
) -> None:
    again = make_phantoms(tmp_path / "again", images=3, seed=3)
    other = make_phantoms(tmp_path / "other", images=3, seed=4)
    for name in ("phantom_0001", "phantom_0002", "phantom_0003"):
        path = f"images/{name}.png"
        assert (again.root / path).read_bytes() == (dataset.root / path).read_bytes()
        assert (other.root / path).read_bytes() != (dataset.root / path).read_bytes()


def test_an_interrupted_set_is_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_phantoms(tmp_path, images=2)

    def stop(number: int) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("dxseg.phantoms.ultrasound.label_of", stop)
    with pytest.raises(KeyboardInterrupt):
        make_phantoms(tmp_path, images=2)
    with pytest.raises(DxsegError, match="not found; expected a dataset"):
        Dataset.load(tmp_path)


def test_images_use_the_gray_scale(dataset: Dataset) -> None:
    for row in dataset.cases.itertuples():
        image = pixels(dataset.image_path(row))
        assert 40 < image.mean() < 160
        assert (image == 255).mean() < 0.05
        assert image[20:80].std() > 15


def lesion_scene(label: str, seed: int) -> Scene:
    return draw_scene(label, 256, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(8))
def test_lesions_are_darker_than_what_surrounds_them(seed: int) -> None:
    for label in ("benign", "malignant"):
        scene = lesion_scene(label, seed)
        inside = scene.echogenicity[scene.lesion].mean()
        columns = scene.lesion.any(axis=0)
        rows = scene.lesion.any(axis=1)
        around = scene.echogenicity[rows][:, columns][~scene.lesion[rows][:, columns]].mean()
        assert inside < around


def test_posterior_enhancement_and_shadow_come_from_attenuation() -> None:
    for seed in range(8):
        benign, malignant = lesion_scene("benign", seed), lesion_scene("malignant", seed)
        assert benign.attenuation[benign.lesion].mean() < 0.6
        assert malignant.attenuation[malignant.lesion].mean() > 0.95
        assert np.median(benign.attenuation) == pytest.approx(0.9, abs=0.25)


def test_malignant_outlines_are_rougher_than_benign_ones() -> None:
    """Compactness 4 pi area / perimeter^2 is 1 for a disc and falls with every spicule."""

    def compactness(lesion: NDArray[np.bool_]) -> float:
        edge = (lesion[1:] != lesion[:-1]).sum() + (lesion[:, 1:] != lesion[:, :-1]).sum()
        return float(4 * np.pi * lesion.sum() / edge**2)

    benign = np.mean([compactness(lesion_scene("benign", seed).lesion) for seed in range(12)])
    rough = np.mean([compactness(lesion_scene("malignant", seed).lesion) for seed in range(12)])
    assert rough < 0.85 * benign


def test_a_threshold_does_not_solve_it(dataset: Dataset) -> None:
    """The best threshold on smoothed images, chosen with the truth, stays below 0.6 Dice."""
    scores = []
    truth = [r for r in dataset.cases.itertuples() if r.label != "normal"]
    pairs = [(pixels(dataset.image_path(r)), pixels(dataset.mask_path(r)) > 0) for r in truth]
    for level in range(30, 120, 5):
        dice = []
        for image, mask in pairs:
            smooth = zoom(image.reshape(32, 4, 32, 4).mean(axis=(1, 3)), 4, order=1)
            found = smooth < level
            found[:20] = found[85:] = False  # fat above and muscle below are easy to rule out
            dice.append(2 * (found & mask).sum() / (found.sum() + mask.sum()))
        scores.append(np.mean(dice))
    assert max(scores) < 0.6


@pytest.mark.parametrize("seed", range(12))
def test_a_lesion_is_one_piece(seed: int) -> None:
    """The grid used to cut tips of spicules off the mask."""
    assert components(make_phantom("malignant", size=64, seed=(seed,))[1])[1] == 1


def test_normal_images_have_no_lesion() -> None:
    assert not make_phantom("normal", size=64, seed=(1,))[1].any()


def test_cysts_are_dark_in_images_of_any_label_and_not_in_masks() -> None:
    for label in ("normal", "benign", "malignant"):
        plain, cystic = (
            draw_scene(label, 128, np.random.default_rng(4), cysts=cysts) for cysts in (0, 6)
        )
        echoless = cystic.echogenicity < -19
        assert echoless.sum() > 2 * (plain.echogenicity < -19).sum()
        assert (echoless & cystic.lesion).sum() <= 0.02 * cystic.lesion.sum()


def test_without_cysts_the_pixels_are_those_of_before(dataset: Dataset) -> None:
    image, _ = make_phantom("normal", size=128, seed=(3, 1), cysts=0)
    assert (image == pixels(dataset.root / "images" / "phantom_0001.png")).all()


def test_labels_follow_the_shares() -> None:
    labels = [label_of(number) for number in range(1, 301)]
    assert labels.count("benign") == 113
    assert labels.count("malignant") == 112


def test_size_sets_the_sampling_not_the_field_of_view(tmp_path: Path) -> None:
    small = make_phantoms(tmp_path, images=2, size=64)
    assert pixels(tmp_path / "images" / "phantom_0002.png").shape == (64, 64)
    assert small.cases["spacing_y"].iloc[0] * 64 == pytest.approx(DEPTH_MM)


@pytest.mark.parametrize(
    ("name", "value"),
    [("images", 0), ("images", 10_000), ("size", 63), ("size", 2048), ("seed", -1), ("cysts", 11)],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{name} {value}"):
        make_phantoms(tmp_path, **{name: value})
    assert not list(tmp_path.iterdir())
