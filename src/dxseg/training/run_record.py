"""The files of a finished run and of a finished stage 1, and what `run.json` records."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dxseg.config.schema import DeviceConfig
from dxseg.errors import DxsegError

RUN_FILE = "run.json"
STAGE1_WEIGHTS = "coarse.safetensors"
STAGE1_RECORD = "stage1.json"

_PACKAGES = (
    "dxseg",
    "torch",
    "torchvision",
    "lightning",
    "timm",
    "segmentation-models-pytorch",
    "monai",
    "numpy",
    "scipy",
    "pillow",
)


def read_run(output: Path) -> dict[str, Any]:
    """Read the `run.json` of a finished run, which has at least the key `dataset`.

    Raises:
        DxsegError: there is none, or it is damaged or names no dataset.
    """
    path = output / RUN_FILE
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DxsegError(
            f"{path}: not found; expected the folder of a finished run: train it, or continue it "
            "with the command that started it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DxsegError(f"{path}: not JSON ({error}); remove it and train again") from error
    if not isinstance(loaded, dict) or not isinstance(loaded.get("dataset"), str):
        raise DxsegError(
            f"{path}: the key dataset is missing; expected the dataset's folder. Remove the "
            "file and train again"
        )
    return loaded


def has_stage1(folder: Path) -> bool:
    """Whether a folder of stage 1 holds both of its files; a copy may lack the weights.

    Args:
        folder: `stage1` of a run.
    """
    return all((folder / name).is_file() for name in (STAGE1_WEIGHTS, STAGE1_RECORD))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that influence the weights."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def machine(device: DeviceConfig) -> dict[str, Any]:
    """Properties of the machine that may change the last bits of a result.

    Args:
        device: where the run computes.

    Returns:
        `system`, `processor`, `threads` per operation on the CPU, and the `accelerator`, "cpu" if
        there is none. Nothing identifies the machine.
    """
    import torch  # here, so that reading a record does not wait for it

    gpu = device.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if gpu else "cpu",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def teacher_sources(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """The teachers of a student: `run` and `weights_sha256` of each; none of other runs.

    Args:
        record: the content of `run.json`.
    """
    first = record.get("distilled_from")
    return [] if first is None else [first, *first.get("others", [])]
