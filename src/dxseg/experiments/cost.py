"""The cost of a network: multiply-adds and inference time; the run counts its parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from dxseg.io.atomic import sha256_json, write_json_atomic
from dxseg.io.progress import Report

COST_FILE = "cost.json"
_ROUNDS = 20


def measure_costs(models: Mapping[str, Path], store: Path, report: Report) -> dict[str, Any]:
    """Measure the networks of methods, one image at a time, in turns, on the CPU.

    Call it when nothing else of the experiment runs. Earlier measurements are kept.

    Args:
        models: Method to the model folder of one of its runs.
        store: The file of the measurements.
        report: Called with the number of rounds done and their total.

    Returns:
        For each method, earlier measurements included: multiply_adds of one image at the network's
        input size; inference_ms, the median over rounds of one call of the network without
        preprocessing.
    """
    import torch

    stored = _read(store)
    keys = {method: _key(folder) for method, folder in models.items()}
    missing = {
        method: f
        for method, f in models.items()
        if stored.get(method, {}).get("key") != keys[method]
    }
    networks = {method: _load(folder) for method, folder in missing.items()}
    counted = {method: _multiply_adds(*network) for method, network in networks.items()}
    times: dict[str, list[float]] = {method: [] for method in networks}
    for done in range(_ROUNDS + 1):
        for method, network in networks.items():
            times[method].append(_seconds(*network))
        report(done, _ROUNDS)
    for method in networks:
        stored[method] = {
            "key": keys[method],
            "multiply_adds": counted[method],
            "inference_ms": round(1000 * median(times[method][1:]), 2),  # the first warms up
            "threads": torch.get_num_threads(),
        }
    if networks:
        write_json_atomic(store, stored)
    return {
        method: {name: measured[name] for name in ("multiply_adds", "inference_ms")}
        for method, measured in stored.items()
    }


def _read(store: Path) -> dict[str, Any]:
    """Earlier measurements; none from a damaged file."""
    try:
        content = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _key(folder: Path) -> str:
    """Digest of what the cost depends on: the network and its input size, not the weights."""
    info = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return sha256_json([info["model"], info["preprocessing"]["image_size"], info["labels"]])


def _load(folder: Path) -> tuple[Any, Any]:
    """The network as the predictor runs it, and an image for it."""
    import torch

    from dxseg.inference.backends import TorchBackend
    from dxseg.inference.model_folder import load_model_folder

    segmenter, info = load_model_folder(folder)
    size = info.preprocessing.image_size
    pixels = torch.zeros(1, info.preprocessing.channels, size, size)
    return TorchBackend(segmenter).network, pixels.contiguous(memory_format=torch.channels_last)


def _multiply_adds(segmenter: Any, pixels: Any) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        segmenter(pixels)
    return int(counter.get_total_flops()) // 2


def _seconds(segmenter: Any, pixels: Any) -> float:
    import torch

    with torch.inference_mode():
        started = perf_counter()
        segmenter(pixels)
        return perf_counter() - started
