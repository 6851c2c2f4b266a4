"""How many processes train, and how Lightning starts them.

torchrun and SLURM are detected by Lightning: they start the processes, and each runs the whole
command. Without them, Lightning spawns the processes of `Trainer.fit`, and everything before and
after it runs in one process. Spawning works from Python as well as on the command line: Lightning's
default would start the script again, and from Python that is the caller's.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy as FabricDDP
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from lightning.pytorch.strategies import DDPStrategy
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from dxseg.config.schema import DeviceConfig
from dxseg.errors import UsageError
from dxseg.io.progress import console
from dxseg.training.errors import silence_advice

_TIMEOUT = timedelta(days=1)
"""The other processes wait while the first one decodes images."""


def join_processes(device: DeviceConfig) -> Fabric:
    """Join the processes that torchrun or SLURM started together with this one.

    Args:
        device: of the configuration.

    Returns:
        Rank, world size and barriers of these processes, of which only the first draws progress.
        Without a launcher this process is the only one.

    Raises:
        UsageError: several machines are requested without a launcher, or devices that this machine
            does not have.
    """
    launched = _launched()
    if launched is None:
        if device.num_nodes > 1:
            raise UsageError(
                f"device.num_nodes {device.num_nodes}: processes on other machines need a "
                "launcher; start one process per device with torchrun or srun "
                "(docs/how-to/cluster.md) and leave device.num_nodes out"
            )
        _fabric(device, device.devices)  # refuses here what Trainer.fit would refuse later
        return Fabric(accelerator="cpu", devices=1)
    devices, num_nodes = launched
    strategy = FabricDDP(timeout=_TIMEOUT)
    fabric = _fabric(device, devices, num_nodes=num_nodes, strategy=strategy)
    fabric.launch()
    console.quiet = not fabric.is_global_zero
    return fabric


def _fabric(device: DeviceConfig, devices: int | str, **options: Any) -> Fabric:
    """Lightning's processes on these devices.

    Raises:
        UsageError: this machine does not have them.
    """
    try:
        return Fabric(accelerator=device.accelerator, devices=devices, **options)
    except (ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise UsageError(
            f"device.accelerator {device.accelerator!r}, device.devices {devices!r}: {error} "
            "Leave both out to use what this machine has"
        ) from error


def trainer_options(device: DeviceConfig, *, find_unused_parameters: bool) -> dict[str, Any]:
    """Arguments of Lightning's Trainer that concern processes.

    Args:
        device: of the configuration; a launcher overrides its numbers.
        find_unused_parameters: whether a step may leave trained parameters without a gradient.
    """
    on_gpu = device.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    devices, num_nodes = _launched() or (device.devices, 1)
    if devices == "auto":
        devices = torch.cuda.device_count() if on_gpu else 1
    options: dict[str, Any] = {"devices": devices, "num_nodes": num_nodes}
    if devices * num_nodes == 1:
        return options
    strategy = _QuietDDP(
        start_method="spawn" if _launched() is None else "popen",
        find_unused_parameters=find_unused_parameters,
        timeout=_TIMEOUT,
    )
    # PyTorch's SyncBatchNorm refuses the CPU: there each process normalizes its own rows.
    plugins = [_TimmSyncBatchNorm()] if on_gpu else []
    return options | {"strategy": strategy, "sync_batchnorm": on_gpu, "plugins": plugins}


def _launched() -> tuple[int, int] | None:
    """Processes per machine and machines that a launcher has started, as Lightning detects it."""
    environment: TorchElasticEnvironment | SLURMEnvironment
    if TorchElasticEnvironment.detect():
        environment = TorchElasticEnvironment()
        num_nodes = environment.world_size() // int(os.environ["LOCAL_WORLD_SIZE"])
    elif SLURMEnvironment.detect() and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        environment = SLURMEnvironment()
        num_nodes = int(os.environ["SLURM_NNODES"])
    else:
        return None
    return environment.world_size() // num_nodes, num_nodes


class _QuietDDP(DDPStrategy):
    """Lightning's strategy; a spawned process does not know what is silenced in the first one."""

    def setup_environment(self) -> None:
        silence_advice()
        super().setup_environment()


class _TimmSyncBatchNorm(TorchSyncBatchNorm):
    """timm's conversion: PyTorch's loses the activation that timm puts into its layers."""

    def apply(self, model: nn.Module) -> nn.Module:
        converted: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted

    def revert(self, model: nn.Module) -> nn.Module:
        """Nothing: what is trained is a copy (`dxseg.training.trainer.fit_stage`)."""
        return model
