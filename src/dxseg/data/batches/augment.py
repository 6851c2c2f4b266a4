"""Augmentation with torchvision v2: geometry on image and mask together, intensity on the image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from dxseg.config.schema import AugmentConfig
from dxseg.config.stages import SelfTrainingConfig


class RandomIntensity(v2.Transform):
    """Brightness, contrast, gamma and noise for images of any number of channels.

    torchvision's own color transforms take one or three channels only. Values are expected in
    [0, 1] and stay there.
    """

    def __init__(self, config: AugmentConfig) -> None:
        super().__init__()
        self.config = config

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002
        """Draw the four strengths for one image."""
        c = self.config
        contrast, brightness, gamma, noise = torch.rand(4).tolist()
        return {
            "contrast": 1 + c.contrast * (2 * contrast - 1),
            "brightness": c.brightness * (brightness - 0.5),
            "gamma": 1 + c.gamma * (2 * gamma - 1),
            "noise": c.noise * noise,
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Change images, leave masks alone."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        # One copy, then in place: a fresh buffer per operation costs more than the arithmetic.
        x = inpt.as_subclass(Tensor) - 0.5
        x.mul_(params["contrast"]).add_(0.5).add_(params["brightness"])
        x.clamp_(0, 1).pow_(params["gamma"])
        if params["noise"] > 0:
            x.add_(torch.randn_like(x).mul_(params["noise"])).clamp_(0, 1)
        return tv_tensors.Image(x)


def build_augmentation(config: AugmentConfig) -> v2.Compose:
    """The transform of one training pair: image float (C, S, S) in [0, 1], mask uint8 (S, S)."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(config.horizontal_flip),
            v2.RandomVerticalFlip(config.vertical_flip),
            v2.RandomAffine(
                degrees=config.degrees,
                translate=(config.translate, config.translate),
                scale=config.scale,
                shear=config.shear,
                interpolation=v2.InterpolationMode.BILINEAR,
                # Outside is 0 in both; sampling nearest neighbors gives that for free.
                fill={tv_tensors.Image: 0, tv_tensors.Mask: None},
            ),
            RandomIntensity(config),
        ]
    )


CUTMIX_AREA, CUTMIX_RATIO = (0.02, 0.4), (0.3, 1 / 0.3)
"""Fraction of the image and ratio of the sides of a rectangle, in UniMatch (Yang et al. 2023)."""

COPY_PASTE_AREA, COPY_PASTE_RATIO = (4 / 9, 4 / 9), (1.0, 1.0)
"""The same in BCP (Bai et al. 2023): two thirds of each side."""


class StrongAugmentation:
    """Strong views of a standardized image (C, S, S): contrast, brightness, noise and erasing.

    For the student of self-training; see `dxseg.config.stages.SelfTrainingConfig`. Images are mixed
    in the training step; which rectangle of a view another image replaces is drawn here.
    """

    def __init__(self, config: SelfTrainingConfig) -> None:
        self.config = config
        area = (config.erased / 4, config.erased)
        erase = v2.RandomErasing(p=1.0, scale=area, ratio=(0.5, 2.0), value=0)
        self.erase = erase if config.erased else nn.Identity()
        copies = config.mix == "copy-paste"
        area = COPY_PASTE_AREA if copies else CUTMIX_AREA
        ratio = COPY_PASTE_RATIO if copies else CUTMIX_RATIO
        box = v2.RandomErasing(p=config.mix_prob, scale=area, ratio=ratio, value=1)
        self.draw_box = box if config.mix else nn.Identity()

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Make the views (V, C, S, S), and boolean boxes (V, 1, S, S) of what is replaced."""
        views = torch.stack([self._change(image) for _ in range(self.config.strong_views)])
        empty = torch.zeros(1, *image.shape[1:])
        return views, torch.stack([self.draw_box(empty) for _ in views]).bool()

    def unchanged(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The same for an image that is not augmented."""
        views = image.expand(self.config.strong_views, *image.shape)
        return views, torch.zeros_like(views[:, :1], dtype=torch.bool)

    def _change(self, image: Tensor) -> Tensor:
        """Change an image; zero is the mean of the images, so contrast keeps it."""
        contrast, brightness = (2 * torch.rand(2) - 1).tolist()
        changed = image * (1 + self.config.contrast * contrast)
        changed = changed + self.config.brightness * brightness
        changed = changed + self.config.noise * torch.randn_like(image)
        erased: Tensor = self.erase(changed)
        return erased


def augment_pair(transform: v2.Compose, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Augment an image and its mask alike."""
    out_image, out_mask = transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
    return out_image.as_subclass(Tensor), out_mask.as_subclass(Tensor)


@contextmanager
def random_state(seed: int) -> Iterator[None]:
    """Draw random numbers that depend on `seed` alone, in a block.

    torchvision draws from the global generator. It is restored afterwards, so that the result is
    the same in the main process, in a worker, and after resuming.
    """
    # The CPU generator alone: torch.manual_seed would visit every kind of device.
    generator = torch.default_generator
    state = generator.get_state()
    try:
        generator.manual_seed(seed)
        yield
    finally:
        generator.set_state(state)
