"""The whole batch of a step, whose rows several processes share out (`distributed_samplers`).

Every process computes the loss of the whole batch: Dice over a batch, class weights and studies
have no per-process loss whose mean would be the same. Only a network's answers travel; gradients
flow back to the process whose rows they are of. In one process all of this does nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed import all_gather, all_reduce

from dxseg.data.batches.distributed_samplers import rank_and_world_size

_APART = 7_368_787
"""A prime: noise of different steps and processes must not coincide."""


def whole(*parts: Tensor) -> tuple[Tensor, ...]:
    """The rows of all processes, in the order of the whole batch.

    The gradient that a process's own rows get is multiplied by the number of processes, since
    DistributedDataParallel takes the mean over them of what is a sum here.

    Args:
        parts: this process's rows of tensors of the same length; at most one row fewer than in
            another process.
    """
    _, size = rank_and_world_size()
    if size == 1:
        return parts
    rows = whole_length(len(parts[0]), parts[0].device)
    return tuple(_Gather.apply(part, rows) for part in parts)


def whole_length(length: int, device: torch.device) -> int:
    """Rows of all processes together."""
    if rank_and_world_size()[1] == 1:
        return length
    count = torch.tensor(length, device=device)
    all_reduce(count)
    return int(count)


def own(rows: Tensor) -> Tensor:
    """This process's rows of something that is the same in all, such as random numbers."""
    rank, size = rank_and_world_size()
    return rows[rank::size]


def draw_apart() -> None:
    """Let what the network itself draws, such as dropout, differ between processes.

    To be called where the draws of the whole batch are made and before the network runs.
    """
    rank, _ = rank_and_world_size()
    if rank:
        torch.manual_seed(torch.initial_seed() + rank * _APART)


def total(tensor: Tensor) -> Tensor:
    """The sum over all processes; gradients flow back to all."""
    added: Tensor = _Sum.apply(tensor)
    return added


class _Sum(torch.autograd.Function):
    """Adds up, forwards and backwards."""

    @staticmethod
    def forward(context: Any, part: Tensor) -> Tensor:  # noqa: ARG004
        added = part.clone()
        all_reduce(added)
        return added

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        added = gradient.clone()
        all_reduce(added)
        return added


class _Gather(torch.autograd.Function):
    """Interleaves the rows of all processes."""

    @staticmethod
    def forward(context: Any, part: Tensor, rows: int) -> Tensor:  # noqa: ARG004
        _, size = rank_and_world_size()
        sent = part.to(torch.uint8) if part.dtype == torch.bool else part
        longest = -(-rows // size)
        padded = sent.new_zeros(longest, *sent.shape[1:])
        padded[: len(sent)] = sent
        received = [torch.empty_like(padded) for _ in range(size)]
        all_gather(received, padded)
        return torch.stack(received, dim=1).flatten(0, 1)[:rows].to(part.dtype)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return own(gradient) * rank_and_world_size()[1], None
