"""Batch normalisation over the whole batch, where several processes share it out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from dxseg.data.batches.distributed_samplers import rank_and_world_size
from dxseg.training.collectives import total


class WholeBatchNorm(nn.BatchNorm2d):
    """Normalises by the statistics of the rows of all processes, on any device.

    PyTorch's own SyncBatchNorm refuses the CPU.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        """Take the place of a layer.

        Args:
            norm: its weights and statistics are shared; what timm puts behind them, an activation
                for one, is kept.
        """
        super().__init__(norm.num_features, norm.eps, norm.momentum, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers(recurse=False):
            setattr(self, name, buffer)
        self.after = nn.ModuleList(norm.children())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        normalised = self._by_batch(x) if self.training else super().forward(x)
        for layer in self.after:
            normalised = layer(normalised)
        return normalised

    def _by_batch(self, x: Tensor) -> Tensor:
        every = (0, 2, 3)
        # Double: the mean of squares minus the square of the mean cancels.
        sums = torch.stack([x.sum(every, dtype=torch.float64), (x * x).sum(every).double()])
        count = sums.new_full((1, self.num_features), x.numel() / self.num_features)
        values, squares, number = total(torch.cat([sums, count]))
        mean = values / number
        variance = squares / number - mean * mean
        self._follow(mean.detach(), (variance * number / (number - 1)).detach())
        scale = (variance + self.eps).rsqrt().to(self.weight.dtype) * self.weight
        shift = self.bias - mean.to(scale.dtype) * scale
        whole: Tensor = x * scale[:, None, None] + shift[:, None, None]
        return whole.to(x.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None, "a network's layers track their statistics"
        assert self.running_var is not None, "as above"
        assert self.num_batches_tracked is not None, "as above"
        assert self.momentum is not None, "as above"
        self.num_batches_tracked += 1
        kind = self.running_mean.dtype
        self.running_mean.lerp_(mean.to(kind), self.momentum)
        self.running_var.lerp_(variance.to(kind), self.momentum)


def _by_pytorch(norm: nn.BatchNorm2d) -> nn.Module:
    # timm's conversion, for PyTorch's loses what timm puts behind the normalisation.
    converted: nn.Module = convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
    return converted


@contextmanager
def synchronized_norms(network: nn.Module, *, on_cpu: bool) -> Iterator[None]:
    """Let a network normalise over the whole batch while the block runs; for one process, nothing.

    Args:
        network: afterwards it has its own layers again, with the weights learnt meanwhile.
        on_cpu: where it is to run; elsewhere PyTorch's layers are used, which are faster.
    """
    places = [
        (parent, name, layer)
        for parent in network.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.BatchNorm2d)
    ]
    if rank_and_world_size()[1] == 1:
        places = []
    replaced: dict[nn.Module, nn.Module] = {}
    for parent, name, layer in places:
        if layer not in replaced:
            replaced[layer] = WholeBatchNorm(layer) if on_cpu else _by_pytorch(layer)
            replaced[layer].train(layer.training)
        setattr(parent, name, replaced[layer])
    try:
        yield
    finally:
        for parent, name, layer in places:
            # Moving to a device and back has made new tensors of the statistics.
            for key, buffer in replaced[layer].named_buffers(recurse=False):
                setattr(layer, key, buffer)
            setattr(parent, name, layer)
