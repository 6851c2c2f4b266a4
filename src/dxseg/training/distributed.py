"""The processes that train together: joining them, starting them, and who writes files.

One process a device. A launcher has started them (torchrun, srun), or `launch` does, on this
machine. All run the same code; what is written, the first of them writes.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import uuid4

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console
from torch import distributed

from dxseg.config.schema import DeviceConfig
from dxseg.data.batches.distributed_samplers import rank_and_world_size
from dxseg.errors import DxsegError, TerminatedError, UsageError
from dxseg.io.atomic import write_text_atomic

Result = TypeVar("Result")

_PATIENCE = timedelta(days=1)
"""The others wait while the first decodes images; a process that dies ends all at once anyway."""


def together(
    device: DeviceConfig, console: Console, work: Callable[..., Result], *arguments: Any
) -> Result:
    """Run a function in as many processes as there are to be devices.

    Args:
        device: of the configuration.
        console: told to the function as ``console``; quiet in all processes but the first.
        work: can be imported by its name.
        arguments: of the function, picklable.

    Returns:
        What the function gives in the first process.

    Raises:
        UsageError: several machines are wanted, and there is no launcher.
        DxsegError: what the function raised, or a process died.
        KeyboardInterrupt: the user or a scheduler (:class:`dxseg.errors.TerminatedError`) stopped
            it.
    """
    processes = _to_launch(device)
    if processes > 1:
        return _launch(processes, device, console, work, *arguments)
    with _joined(device):
        return work(*arguments, console=console if is_rank_zero() else Console(quiet=True))


def is_rank_zero() -> bool:
    """Whether this process is the one that writes and speaks, also before it joins the others."""
    environment = _environment()
    return environment is None or environment.global_rank() == 0


@contextmanager
def _joined(device: DeviceConfig) -> Iterator[None]:
    """Join the processes that a launcher started with this one, if it did, for a block."""
    environment = _environment()
    if environment is None and device.num_nodes > 1:
        raise UsageError(
            f"device.num_nodes {device.num_nodes}: one process cannot start others elsewhere; "
            "start one a device with torchrun or srun (docs/how-to/cluster.md) and leave "
            "device.num_nodes out"
        )
    if environment is None or distributed.is_initialized():
        yield
        return
    place: dict[str, Any] = {}
    if isinstance(environment, SLURMEnvironment):  # torchrun's own meeting place is the default
        address = f"tcp://{environment.main_address}:{environment.main_port}"
        place = {"init_method": address, "rank": environment.global_rank()}
        place["world_size"] = environment.world_size()
    backend = "cpu:gloo,cuda:nccl" if _on_gpus(device) else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE, **place)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def trainer_options(device: DeviceConfig, *, find_unused_parameters: bool) -> dict[str, Any]:
    """How many devices and nodes Lightning's Trainer is told, and how they work together.

    Args:
        device: of the configuration; where there is a launcher, it decides.
        find_unused_parameters: whether a step may leave trained parameters without a gradient.
    """
    environment = _environment()
    if environment is None:
        return {"devices": device.devices, "num_nodes": 1}
    size = environment.world_size()
    if isinstance(environment, SLURMEnvironment):
        nodes = int(os.environ["SLURM_NNODES"])
    else:
        nodes = size // int(os.environ["LOCAL_WORLD_SIZE"])
    strategy = DDPStrategy(find_unused_parameters=find_unused_parameters)
    return {"devices": size // nodes, "num_nodes": nodes, "strategy": strategy}


def rank_zero_first(work: Callable[[], Result]) -> Result:
    """Let the first process do something, then the others, who find the files it left.

    Raises:
        Exception: what the first process met, in all of them.
    """
    done: list[Result] = []
    run_on_rank_zero(lambda: done.append(work()))
    return done[0] if done else work()


def run_on_rank_zero(work: Callable[[], Result]) -> Result:
    """Let the first process do something while the others wait; all get a picklable result.

    Raises:
        Exception: what the first process met, in all of them.
    """
    rank, size = rank_and_world_size()
    if size == 1:
        return work()
    told: list[Any] = [None, None]
    if rank == 0:
        try:
            told[0] = work()
        except Exception as error:  # noqa: BLE001 - raised below, everywhere
            told[1] = error
    distributed.broadcast_object_list(told)
    if told[1] is not None:
        raise told[1]
    result: Result = told[0]
    return result


def barrier() -> None:
    """Go on when all processes have come here."""
    if rank_and_world_size()[1] > 1:
        distributed.barrier()


def _to_launch(device: DeviceConfig) -> int:
    """How many processes this one has to start: 1 for none, or where a launcher did."""
    if _environment() is not None or device.num_nodes > 1:
        return 1
    if device.devices != "auto":
        return device.devices
    return torch.cuda.device_count() if _on_gpus(device) else 1


def _launch(
    processes: int,
    device: DeviceConfig,
    console: Console,
    work: Callable[..., Result],
    *arguments: Any,
) -> Result:
    """Run a function in several new processes of this machine.

    They meet at a server of this process. Torch's other way, the backend c10d, gives up on a busy
    machine before they have started.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The launcher shares this server, so nobody else can take the port meanwhile.
    server = distributed.TCPStore(  # type: ignore[attr-defined]  # documented, but not stubbed
        "localhost", 0, is_master=True, multi_tenant=True
    )
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid4().hex,
        rdzv_backend="static",
        rdzv_endpoint=f"localhost:{server.port}",
        rdzv_configs={"rank": 0, "timeout": int(_PATIENCE.total_seconds())},
        max_restarts=0,
        monitor_interval=0.1,
        start_method="spawn",
    )
    with TemporaryDirectory() as folder, _own_signals(), _quiet():
        launch = elastic_launch(config, _launched)
        try:
            results = launch(device, console.quiet, Path(folder), work, *arguments)
        except SignalException as error:
            kind = TerminatedError if error.sigval == signal.SIGTERM else KeyboardInterrupt
            raise kind from error
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            told: Any = failure.message
            reason = told["message"] if isinstance(told, dict) else told
            raise _left(Path(folder)) or DxsegError(
                f"training process {rank} of {processes} ended (exit code {failure.exitcode}): "
                f"{reason}; the same command continues the run"
            ) from error
    return results[0]  # type: ignore[no-any-return]


def _leaving(
    folder: Path, work: Callable[..., Result], *arguments: Any, console: Console
) -> Result:
    """Run a function, and leave the error of a user for the process that launched this one.

    It is left before this process leaves the group: the others then fail for want of it, and torch
    tells one failure only, not always the first.
    """
    try:
        return work(*arguments, console=console)
    except DxsegError as error:
        left = [isinstance(error, UsageError), str(error)]
        write_text_atomic(folder / f"{rank_and_world_size()[0]}.json", json.dumps(left))
        raise


def _left(folder: Path) -> DxsegError | None:
    """An error that a process left."""
    for path in sorted(folder.glob("*.json")):
        wrongly_asked, text = json.loads(path.read_text(encoding="utf-8"))
        return UsageError(text) if wrongly_asked else DxsegError(text)
    return None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Give back the handlers of signals that torch's launcher replaces, and leaves replaced."""
    caught = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {kind: signal.getsignal(kind) for kind in caught}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for kind, handler in before.items():
                if handler is not None:  # None: it was not set in Python
                    signal.signal(kind, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's launcher: why a process ended is told by the error that is raised."""
    place = "torch.distributed.elastic"
    loggers = [
        logging.getLogger(f"{place}.{name}") for name in ("multiprocessing.api", "agent.server.api")
    ]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _launched(
    device: DeviceConfig,
    quiet: bool,
    folder: Path,
    work: Callable[..., Result],
    *arguments: Any,
) -> Result:
    """What each new process runs."""
    share = torch.get_num_threads() // int(os.environ["LOCAL_WORLD_SIZE"])
    torch.set_num_threads(max(1, share))
    console = Console(stderr=True, quiet=quiet)
    result: Result = together(device, console, _leaving, folder, work, *arguments)
    return result


def _environment() -> TorchElasticEnvironment | SLURMEnvironment | None:
    """The launcher that started this process beside others, as Lightning finds it."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and SLURMEnvironment.detect():
        return SLURMEnvironment()
    return None


def _on_gpus(device: DeviceConfig) -> bool:
    return device.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
