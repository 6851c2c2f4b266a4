"""The whole image behind a patch, at the resolution at which it is classified (ours).

A label is about a whole image, a mask about its pixels. So the coarse branch may see the image
reduced, as a whole, while the fine branch sees it at full resolution, and in training only a patch
of it; the coarse features are then cropped to the patch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from dxseg.models.coarse_branch import CoarseBranch, CoarseOutput


@dataclass(frozen=True)
class WholeView:
    """Whole images, reduced, and where in them the images of a batch lie.

    Attributes:
        image: (B, C, h, w) whole images, averaged over blocks of `reduction` x `reduction` pixels;
            (1, C, h, w) if all patches are of one image.
        reduction: Side of these blocks.
        corners: (B, 2) x and y of the upper left corner of each patch in its whole image, in pixels
            before the reduction; None if the batch holds whole images.
        patch_size: Height and width of the patches; only with `corners`.
    """

    image: Tensor
    reduction: int = 1
    corners: Tensor | None = None
    patch_size: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, images: Tensor, reduction: int) -> WholeView:
        """Reduce whole images (B, C, H, W), H and W multiples of `reduction`."""
        return cls(reduce_image(images, reduction), reduction)

    def classify(
        self, coarse: CoarseBranch, label_prompt: Tensor | None
    ) -> tuple[CoarseOutput, Tensor]:
        """Run a coarse branch on the whole images.

        Returns:
            Its output and its evidence. Logits are of the whole images, one row of one image; maps
            are placed, see `place`.
        """
        output: CoarseOutput = coarse(self.image)
        evidence = self.place(coarse.evidence(output, label_prompt))
        placed = replace(
            output,
            encoder_features=[self.place(one) for one in output.encoder_features],
            decoder_features={s: self.place(one) for s, one in output.decoder_features.items()},
        )
        return placed, evidence

    def place(self, features: Tensor) -> Tensor:
        """Crop and enlarge features of `image` to what the batch shows, at the same stride.

        Args:
            features: (B, F, h / s, w / s), or of one image for all, at a stride s of `image`.

        Returns:
            (B, F, H / s, W / s), at the stride s of the batch's images (B, C, H, W).
        """
        if self.corners is not None:
            return self._crop(features, self.corners)
        if self.reduction == 1:
            return features
        # By a factor and not by sizes: an exported network then takes images of any size.
        factor = float(self.reduction)
        return F.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=False)

    def _crop(self, features: Tensor, corners: Tensor) -> Tensor:
        """Bilinear samples at the pixel centers of each patch."""
        stride = self.image.shape[-1] // features.shape[-1]
        # bfloat16 would round a corner at 1001 px to 1000.
        maps = features.float().expand(len(corners), -1, -1, -1)
        # x before y, as in affine_grid and in corners.
        whole = maps.new_tensor([self.image.shape[-1], self.image.shape[-2]]) * self.reduction
        patch = maps.new_tensor([self.patch_size[1], self.patch_size[0]])
        centers = (2 * corners.to(maps) + patch) / whole - 1
        scale = torch.diag_embed((patch / whole).expand_as(centers))
        theta = torch.cat([scale, centers[:, :, None]], dim=2)
        size = [side // stride for side in self.patch_size]
        grid = F.affine_grid(theta, [*maps.shape[:2], *size], align_corners=False)
        placed = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
        return placed.to(features.dtype)


def reduce_image(images: Tensor, reduction: int) -> Tensor:
    """Average blocks of `reduction` x `reduction` pixels of (B, C, H, W)."""
    return images if reduction == 1 else F.avg_pool2d(images, reduction)
