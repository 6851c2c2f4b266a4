"""The anatomy of the phantoms: maps of echogenicity and attenuation, with a lesion or without."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d, uniform_filter

Map = NDArray[np.float32]
DEPTH_MM = 40.0


@dataclass
class Scene:
    """The imaged tissue, and the settings of the scanner. Maps are (N, N), depth first, 40 mm wide.

    Attributes:
        echogenicity: Scatterer amplitude in dB, 0 for fibroglandular tissue.
        attenuation: Two-way loss in dB/mm.
        lesion: Pixels of the lesion.
        gain: Gain of each beam in dB, (1, N): contact with the skin varies.
        compensation: Time-gain compensation in dB/mm.
        focus: Depth of the focus in mm.
        noise_floor: Electronic noise in dB, before compensation.
        dynamic_range: Displayed range in dB.
        brightness: Gray of 0 dB, 0..1.
    """

    echogenicity: Map
    attenuation: Map
    lesion: NDArray[np.bool_]
    gain: Map
    compensation: float
    focus: float
    noise_floor: float
    dynamic_range: float
    brightness: float


def draw_scene(label: str, count: int, rng: np.random.Generator, *, cysts: float = 0.0) -> Scene:
    """Draw tissue, distractors, a lesion unless the label is normal, and scanner settings.

    Args:
        label: normal, benign or malignant.
        count: Height and width of the maps.
        rng: Source of everything random.
        cysts: Mean number of simple cysts, whatever the label.
    """
    tissue = _Tissue(count, rng)
    tissue.add_layers()
    tissue.add_lobules()
    tissue.add_ligaments()
    for _ in range(rng.poisson(cysts)):
        tissue.add_cyst()
    if label == "benign":
        tissue.add_benign()
    elif label == "malignant":
        tissue.add_malignant()
    return Scene(
        echogenicity=tissue.echogenicity,
        attenuation=np.maximum(tissue.attenuation, 0.02),
        lesion=tissue.lesion,
        gain=tissue.beam_gain(),
        compensation=rng.uniform(0.72, 0.95),
        focus=rng.uniform(10, 28),
        noise_floor=rng.uniform(-62, -48),
        dynamic_range=rng.uniform(50, 60),
        brightness=rng.uniform(0.50, 0.66),
    )


class _Tissue:
    """The maps while they are drawn; y and x are positions in mm, (N, 1) and (1, N)."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.count = count
        self.pixel = DEPTH_MM / count
        self.y: Map = (np.arange(count, dtype=np.float32)[:, None] + 0.5) * self.pixel
        self.x: Map = (np.arange(count, dtype=np.float32)[None] + 0.5) * self.pixel
        self.echogenicity: Map = np.zeros((count, count), np.float32)
        self.attenuation: Map = np.zeros((count, count), np.float32)
        self.lesion = np.zeros((count, count), np.bool_)
        self.gland_top: Map = np.zeros((1, count), np.float32)
        self.gland_bottom: Map = np.zeros((1, count), np.float32)

    def curve(self, mean: float, spread: float, scale: float) -> Map:
        """Draw a wavy horizontal boundary: depth in mm for each beam, (1, N)."""
        noise = self.rng.standard_normal(3 * self.count, np.float32)
        smooth = gaussian_filter1d(noise, scale / self.pixel)[self.count : 2 * self.count]
        boundary: Map = mean + spread * (smooth / (smooth.std() + 1e-9))[None]
        return boundary

    def texture(self, spread: float, scale_y: float, scale_x: float) -> Map:
        """Draw a smooth random field in dB of that standard deviation; scales in mm."""
        # Noise on a coarse grid, interpolated: as smooth as filtered fine noise, and far cheaper.
        rows, columns = (math.ceil(DEPTH_MM / (2.5 * scale)) + 4 for scale in (scale_y, scale_x))
        coarse = Image.fromarray(self.rng.standard_normal((rows, columns), np.float32))
        y, x = self.rng.uniform(0, 1, 2)
        box = (1 + x, 1 + y, columns - 2 + x, rows - 2 + y)
        fine = coarse.resize((self.count, self.count), Image.Resampling.BICUBIC, box=box)
        # Bicubic interpolation of white noise leaves about 0.8 of its standard deviation.
        return np.asarray(fine) * np.float32(spread / 0.81)

    def soft(self, distance: Map, width: float) -> Map:
        """Turn a signed distance in mm (negative inside) into 1 inside, 0 outside, blurred."""
        weight: Map = 1 / (1 + np.exp(np.clip(distance / width, -40, 40)))
        return weight

    def blend(self, weight: Map, echogenicity: Map | float, attenuation: float) -> None:
        """Replace tissue where the weight is 1."""
        self.echogenicity += weight * (echogenicity - self.echogenicity)
        self.attenuation += weight * (attenuation - self.attenuation)

    def add_layers(self) -> None:
        """Lay skin, fat, fibroglandular tissue, muscle and chest wall on one another."""
        rng = self.rng
        skin = self.curve(rng.uniform(1.2, 2.4), 0.1, 8)
        fat_bottom = self.curve(rng.uniform(5, 12), rng.uniform(0.4, 1.6), 4)
        self.gland_top = np.maximum(skin + 1, fat_bottom)
        self.gland_bottom = self.curve(rng.uniform(23, 32), rng.uniform(0.4, 1.2), 7)
        muscle_bottom = self.gland_bottom + np.abs(self.curve(rng.uniform(4, 7), 0.5, 7))
        dense = rng.uniform(-5, 1)  # fatty breasts are darker throughout and hide lesions
        fat = rng.uniform(-13, -8) + self.texture(1.5, 0.8, 2.0)
        gland = dense + self.texture(2.2, 0.9, 2.2) + self.texture(1.5, 3, 5)
        fibres = 4 * np.sin(self.y / rng.uniform(0.18, 0.3) + self.texture(1.5, 1, 6))
        self.blend(np.ones_like(self.echogenicity), fat, 0.7)
        self.blend(self.soft(self.gland_top - self.y, 0.25), gland, 0.9)
        self.blend(self.soft(self.gland_bottom - self.y, 0.2), -9 + fibres, 1.0)
        self.blend(self.soft(muscle_bottom - self.y, 0.2), -16 + self.texture(2, 1, 3), 1.2)
        self.blend(self.soft(self.y - skin, 0.1), 5.0, 1.0)
        for boundary, strength, width in (
            (skin, 5.0, 0.12),
            (self.gland_bottom, 9.0, 0.2),
            (muscle_bottom, 14.0, 0.25),
        ):
            # Fascia reflect where they lie across the beam: brightness varies along them.
            shine = strength + self.curve(0, 3, 2)
            self.echogenicity += shine * np.exp(-0.5 * ((self.y - boundary) / width) ** 2)

    def add_lobules(self) -> None:
        """Add fat lobules with bright septa to the gland: dark, rounded, and no lesions."""
        rng = self.rng
        edge, inside = self.texture(0.25, 0.8, 1.5), self.texture(1.5, 0.6, 1.5)
        for _ in range(rng.integers(1, 6)):
            x, y = rng.uniform(0, DEPTH_MM), rng.uniform(8, 28)
            width = rng.uniform(1.8, 5.5)
            distance = self.ellipse(y, x, width * rng.uniform(0.3, 0.6), width, rng.normal(0, 0.25))
            distance += edge
            self.blend(self.soft(distance, 0.25), rng.uniform(-11, -4) + inside, 0.7)
            self.echogenicity += rng.uniform(1, 4) * np.exp(-0.5 * (distance / 0.25) ** 2)

    def add_ligaments(self) -> None:
        """Draw Cooper's ligaments: thin bright arcs, some steep enough to cast a shadow."""
        rng = self.rng
        for _ in range(rng.integers(2, 6)):
            x, y = rng.uniform(0, DEPTH_MM), rng.uniform(4, 18)
            length, tilt = rng.uniform(3, 9), rng.normal(0, 0.6)
            cos, sin = math.cos(tilt), math.sin(tilt)
            along: Map = (self.x - x) * cos + (self.y - y) * sin
            across = (self.y - y) * cos - (self.x - x) * sin - rng.normal(0, 0.04) * along**2
            line = np.exp(-0.5 * (across / 0.18) ** 2) * self.soft(abs(along) - length / 2, 0.4)
            self.echogenicity += rng.uniform(4, 9) * line
            # Steep surfaces deflect the beam: a shadow of some dB, spread along its path.
            crossing = min(0.45 / max(abs(cos), 1e-3), length)
            self.attenuation += rng.uniform(0, 9) * abs(sin) / crossing * line

    def add_cyst(self) -> None:
        """Add a simple cyst: smooth as a benign lesion, but without echoes, and not a lesion."""
        rng = self.rng
        width = rng.uniform(1.6, 5.0)
        height = width * rng.uniform(0.6, 0.95)
        y, x = self.place(height, width)
        distance = self.ellipse(y, x, height, width, rng.normal(0, 0.2), wobble=0.04)
        self.blend(self.soft(distance, 0.15), rng.uniform(-30, -20), rng.uniform(0.0, 0.3))
        self.echogenicity += rng.uniform(0, 4) * np.exp(-0.5 * ((distance - 0.2) / 0.2) ** 2)

    def add_benign(self) -> None:
        """Add a smooth ellipse, wider than tall, of low attenuation, with a thin capsule."""
        rng = self.rng
        width = rng.uniform(3.4, 8.0)
        height = width * rng.uniform(0.5, 0.8)
        y, x = self.place(height, width)
        distance = self.ellipse(y, x, height, width, rng.normal(0, 0.2), wobble=0.05)
        self.lesion = distance < 0
        level = self.surroundings() + rng.uniform(-14, -8)
        loss = rng.uniform(0.0, 0.3)
        self.blend(self.soft(distance, 0.15), level + self.texture(1.2, 1, 1), loss)
        self.echogenicity += rng.uniform(0, 4) * np.exp(-0.5 * ((distance - 0.2) / 0.2) ** 2)

    def add_malignant(self) -> None:
        """Add an irregular, spiculated mass of high attenuation with an echogenic halo."""
        rng = self.rng
        width = rng.uniform(2.6, 7.0)
        height = width * rng.uniform(0.75, 1.3)
        y, x = self.place(height, width)
        distance = self.ellipse(
            y, x, height, width, rng.normal(0, 0.5), wobble=0.13, spikes=int(rng.integers(6, 14))
        )
        self.lesion = distance < 0
        level = self.surroundings() + rng.uniform(-16, -7)
        inside = self.soft(distance, rng.uniform(0.2, 0.6))
        loss = 0.9 + rng.uniform(3, 11) / (2 * height)
        self.echogenicity += rng.uniform(0, 4) * np.exp(-0.5 * ((distance - 0.9) / 0.7) ** 2)
        self.blend(inside, level + self.texture(2.5, 0.8, 1.0), loss)

    def place(self, height: float, width: float) -> tuple[float, float]:
        """Choose the center of a lesion, mostly within the gland, in mm."""
        margin = 0.8 * width
        x = self.rng.uniform(margin, DEPTH_MM - margin)
        column = min(int(x / self.pixel), self.count - 1)
        top, bottom = self.gland_top[0, column], self.gland_bottom[0, column]
        low, high = top + 0.7 * height, bottom - 0.8 * height
        y = self.rng.uniform(low, high) if low < high else (top + bottom) / 2
        return y, x

    def surroundings(self) -> float:
        """Compute the mean echogenicity around the lesion, to which its own is relative."""
        reach = round(4 / self.pixel)
        ring = uniform_filter(self.lesion.astype(np.float32), reach) > 0.02
        return float(np.clip(self.echogenicity[ring & ~self.lesion].mean(), -7, 2))

    def ellipse(
        self,
        y: float,
        x: float,
        height: float,
        width: float,
        tilt: float,
        *,
        wobble: float = 0.0,
        spikes: int = 0,
    ) -> Map:
        """Compute the signed distance, roughly in mm and negative inside, to a star-shaped outline.

        Args:
            y: Depth of the center in mm.
            x: Position of the center in mm.
            height: Semi-axis along the beam in mm.
            width: Semi-axis across the beam in mm.
            tilt: Rotation in radians.
            wobble: Amplitude of the low harmonics of the radius, relative to it.
            spikes: Number of spicules, each a narrow peak of the radius.
        """
        rng = self.rng
        cos, sin = math.cos(tilt), math.sin(tilt)
        u = ((self.x - x) * cos + (self.y - y) * sin) / width
        v = ((self.y - y) * cos - (self.x - x) * sin) / height
        scale = math.sqrt(height * width)
        if not wobble and not spikes:
            smooth: Map = (np.hypot(u, v) - 1) * np.float32(scale)
            return smooth
        angle = np.linspace(-np.pi, np.pi, 721)
        radius = np.ones_like(angle)
        if wobble:
            for order in range(2, 7):
                amplitude = wobble * rng.normal() / np.sqrt(order - 1)
                radius += amplitude * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
        for start in np.linspace(0, 2 * np.pi, spikes, endpoint=False):
            off = angle - start - rng.normal(0, 0.25)
            off = np.abs((off + np.pi) % (2 * np.pi) - np.pi)
            radius += rng.uniform(0.05, 0.45) * np.exp(-off / rng.uniform(0.08, 0.2))
        outline = np.interp(np.arctan2(v, u), angle, np.maximum(radius, 0.4)).astype(np.float32)
        distance: Map = (np.hypot(u, v) - outline) * np.float32(scale)
        return distance

    def beam_gain(self) -> Map:
        """Draw the gain of each beam in dB, (1, N); contact often fails towards an edge."""
        rng = self.rng
        gain = self.curve(0, rng.uniform(0.3, 1.5), 4)
        for from_edge in (self.x, DEPTH_MM - self.x):
            if rng.random() < 0.3:
                gain = gain - rng.uniform(5, 25) * np.exp(-from_edge / rng.uniform(1.5, 5))
        return gain
