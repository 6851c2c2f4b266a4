"""Train a run again from its records, and compare the results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from dxseg.config.presets import read_config
from dxseg.config.schema import RunConfig
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.evaluation.evaluate import evaluate_run, open_run
from dxseg.inference.model_folder import WEIGHTS_FILE
from dxseg.io.atomic import write_json_atomic
from dxseg.io.progress import console, reporting
from dxseg.training.distillation import distill_run
from dxseg.training.run import loads_stage1, train_run
from dxseg.training.run_record import machine, read_run, teacher_sources, versions

RESULT_FILE = "reproduction.json"

_RESULTS = (
    "stage2",
    "self_training",
    "student",
    "training_images",
    "rule_out_threshold",
    "rule_in_threshold",
    "calibration",
    "smoothing",
    "components",
    "cases",
    "splits_sha256",
    "pixels_sha256",
)
"""Keys of run.json that are compared."""


@dataclass(frozen=True)
class Reproduction:
    """Comparison of a run with its repetition.

    Attributes:
        folder: Folder of the second run.
        exact: Whether results must be bit-exact: `device.deterministic`, on the same machine with
            the same versions.
        same_weights: Whether the weights are bit-exact.
        weight_difference: Largest difference of a weight, relative to the largest of its tensor;
            None if the first run has no weights any more.
        environment_differences: One line per version or part of the machine that differs.
        differences: One line per result that differs by more than allowed; empty if reproduced.
        tolerance: Allowed metric difference when runs are not bit-exact.
    """

    folder: Path
    exact: bool
    same_weights: bool
    weight_difference: float | None
    environment_differences: list[str]
    differences: list[str]
    tolerance: float

    @property
    def reproduced(self) -> bool:
        """Whether all results are the same, within the allowed difference."""
        return not self.differences

    @property
    def failed(self) -> list[tuple[str, str]]:
        """Name and difference of each result that differs."""
        pairs = [line.partition(": ") for line in self.differences]
        return [(name, difference) for name, _, difference in pairs]

    def __str__(self) -> str:
        weights = "bit-exact" if self.same_weights else "not bit-exact"
        if self.weight_difference:
            weights += f" (largest relative difference {self.weight_difference:.2g})"
        expected = "bit-exact" if self.exact else f"figures within {self.tolerance:g}"
        ending = (
            "Reproduced."
            if self.reproduced
            else f"Not reproduced: {len(self.differences)} differences."
        )
        return f"Expected: {expected}. Weights: {weights}. Second run: {self.folder}\n{ending}"


def repeat_run(run: Path, output: Path, data: Dataset, tolerance: float) -> Reproduction:
    """Train and evaluate a run again from its records, compare, and write `reproduction.json`.

    Reads `run.json` and `config.yaml` of the run, `splits.csv` if it was given, and the runs whose
    stages it started from. With `device.deterministic`, the same versions and the same machine,
    weights and figures must be bit-exact; otherwise figures must agree within the tolerance.

    Args:
        run: The first run.
        output: Folder of the second.
        data: The dataset of the first, unchanged.
        tolerance: Allowed difference, relative to values above 1.
    """
    record, config = read_run(run), read_config(run / "config.yaml")
    if data.digest() != record.get("dataset_digest"):
        raise DxsegError(
            f"{data.root}: not the dataset that {run} was trained on, or changed since (digest "
            f"{data.digest()[:12]} there, {str(record.get('dataset_digest'))[:12]} in run.json);"
            " give that one with --dataset"
        )
    with _threads(record):
        environment = _environment_diff(record, config)
        for line in environment:
            console.print(f"differs: {line}", soft_wrap=True)
        again = _train(run, record, config, data.root, output)
        results = {key: record.get(key) for key in _RESULTS}
        results_again = {key: again.get(key) for key in _RESULTS}
        for name, first in _evaluations(run):
            results[name] = first
            results_again[name] = _evaluate(first, output, data.root)
    exact = config.device.deterministic and not environment
    weights = _max_weight_difference(run, output)
    same = record.get("weights_sha256", "") == again["weights_sha256"] or weights == 0
    figures, figures_again = dict(_leaves(results, "")), dict(_leaves(results_again, ""))
    differences = _differences(figures, figures_again, 0.0 if exact else tolerance)
    if exact and not same:
        differences.insert(0, "weights: not bit-exact")
    result = Reproduction(output, exact, same, weights, environment, differences, tolerance)
    write_json_atomic(output / RESULT_FILE, asdict(result) | {"folder": str(output)})
    return result


@contextmanager
def _threads(record: Mapping[str, Any]) -> Iterator[None]:
    """Use as many threads as the run: the rounding of sums depends on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(record.get("machine", {}).get("threads", before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _environment_diff(record: Mapping[str, Any], config: RunConfig) -> list[str]:
    """Versions and parts of the machine that differ from those of the run."""
    lines = []
    for key, here in (("versions", versions()), ("machine", machine(config.device))):
        there = record.get(key, {})
        for name in sorted(there.keys() | here.keys()):
            if there.get(name) != here.get(name):
                shown = there.get(name, "not written down")
                lines.append(f"{name}: {shown} there, {here.get(name, 'absent')} here")
    return lines


def _train(
    run: Path,
    record: Mapping[str, Any],
    config: RunConfig,
    dataset: Path,
    output: Path,
) -> dict[str, Any]:
    sources = teacher_sources(record)
    if sources:
        teachers = [_require_dir(run, source["run"]) for source in sources]
        for teacher, source in zip(teachers, sources, strict=True):
            if read_run(teacher).get("weights_sha256") != source["weights_sha256"]:
                raise DxsegError(
                    f"{teacher}: was trained again after the student {run}; restore it"
                )
        stage1 = _require_dir(run, record["stage1_from"])
        return distill_run(teachers, output, config, stage1_run=stage1, dataset_path=dataset)
    splits = run / "splits.csv"
    stages = {key: record.get(f"{key}_from") for key in ("stage1", "stage2")}
    if not loads_stage1(config, after_stage2=stages["stage2"] is not None):
        stages["stage1"] = None  # recorded by earlier versions, without effect
    return train_run(
        dataset,
        output,
        config,
        splits_path=splits if splits.is_file() else None,
        stage1_run=None if stages["stage1"] is None else _require_dir(run, stages["stage1"]),
        stage2_run=None if stages["stage2"] is None else _require_dir(run, stages["stage2"]),
    )


def _require_dir(run: Path, source: str) -> Path:
    if not Path(source).is_dir():
        raise DxsegError(
            f"{run}: started from the run {source}, which is missing; restore it there"
        )
    return Path(source)


def _evaluations(run: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Evaluations of the run, each with the stem of its file."""
    for path in sorted(run.glob("evaluation*.json")):
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            summary["split"], summary["label_prompts"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DxsegError(f"{path}: not an evaluation ({error!r}); evaluate again") from error
        yield path.stem, summary


def _evaluate(first: Mapping[str, Any], output: Path, dataset: Path) -> dict[str, Any]:
    split = first["split"]
    with reporting(console, f"Evaluating on {split}") as progress:
        again = evaluate_run(
            output,
            *open_run(output, dataset),
            split=split,
            label_prompts=first["label_prompts"],
            progress=progress,
        )
    return again.summary


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every value in nested results, without times and digests of weights."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in ("seconds", "weights_sha256"):
                yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{name}[{place}]")
    else:
        yield name, value


def _differences(
    figures: Mapping[str, Any], again: Mapping[str, Any], tolerance: float
) -> list[str]:
    """One line for each value that differs by more than the tolerance, relative to its size."""
    lines = []
    for name in [*figures, *(key for key in again if key not in figures)]:
        first, second = figures.get(name), again.get(name)
        close = first == second
        if isinstance(first, float | int) and isinstance(second, float | int):
            close = abs(first - second) <= tolerance * max(1.0, abs(first), abs(second))
        if not close:
            lines.append(f"{name}: {first} there, {second} here")
    return lines


def _max_weight_difference(run: Path, output: Path) -> float | None:
    if not (run / "model" / WEIGHTS_FILE).is_file():
        return None
    first, second = (load_file(folder / "model" / WEIGHTS_FILE) for folder in (run, output))
    apart = [
        float((first[name].double() - second[name].double()).abs().max())
        / max(float(first[name].double().abs().max()), 1e-12)
        for name in first
        if first[name].numel()
    ]
    return max(apart, default=0.0)
