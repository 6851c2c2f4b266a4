"""Predict large image archives with Ray Data: worker processes, results in Parquet part files."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dxseg.errors import UsageError
from dxseg.inference.files.output_folder import PredictSummary
from dxseg.inference.files.table import deciding
from dxseg.inference.label_prompt import LabelJoin, join_labels
from dxseg.inference.model_folder import find_model_folder
from dxseg.inference.predictor import Predictor
from dxseg.inference.ray.cluster import import_ray, running_ray
from dxseg.inference.ray.inputs import archive_items
from dxseg.inference.ray.parquet import ArchiveManifest, finished, prepare_results
from dxseg.inference.ray.worker import PartPredictor
from dxseg.io.atomic import sha256_json
from dxseg.io.file_lock import exclusive_lock

PART_IMAGES = 512
"""Images per part file at most: what is lost when a worker dies."""

_PARTS_PER_WORKER = 4  # at least, so that no worker waits long for the last one
_CORES_PER_WORKER = 2  # one of them decodes and writes while the other computes
_RETRIES = 3
"""Retries of a part whose worker died; one of its images may be the cause."""

Progress = Callable[[int, int], None]


def predict_archive(
    model: str | Path,
    options: Mapping[str, Any],
    inputs: Sequence[str | Path],
    output: Path,
    *,
    workers: int | None = None,
    labels: str | Path | Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Progress,
) -> PredictSummary:
    """Predict images into `results/*.parquet`, one row and mask per image, by worker processes.

    The columns are those of `predictions.csv`, with numeric types, and `mask`, the bytes of the
    mask's PNG. An image with a result from the same file, model and label prompt is skipped; one
    that fails has none and is predicted again by the next call. So an image has one row, however
    often the call is killed and repeated. A part whose worker dies goes to another worker,
    `_RETRIES` times at most.

    A Ray that this process has initialized (`ray.init`) is used, so the workers may be on other
    machines with the same file system. Otherwise Ray is started on this machine and stopped
    afterwards.

    Args:
        model: A model that `Predictor.from_folder` loads, with its `options`.
        options: `precision` and `flip`, and perhaps others.
        inputs: See `dxseg.inference.ray.inputs.archive_items`.
        output: The folder to write to, created if needed.
        workers: Worker processes; default: cores / 2.
        labels: Label prompts; see `predict_files`.
        overwrite: Recompute existing predictions.
        progress: Called with the number of images finished or skipped, and of all.

    Raises:
        UsageError: Ray is not installed, no image was found, a volume is among them, two have one
            name, the folder holds other results, or the labels are not of the model or of these
            files.
        DxsegError: The model is bad, a table or part cannot be read, Ray does not start, or
            another process works on this folder.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers: expected 1 or more")
    import_ray()  # here, so that its absence is reported at once, as what is wrong with the model
    root, model = output.resolve(), find_model_folder(model)  # downloaded once, if on the hub
    info = Predictor.from_folder(model, **options).info
    passed_over: list[Path] = []
    items = archive_items(inputs, skip=[root], passed_over=passed_over)
    joined = LabelJoin() if labels is None else join_labels(labels, items, info)
    wanted = {item.name: (str(item.source), joined.by_name.get(item.name, "")) for item in items}
    manifest = ArchiveManifest(
        model=info.weights_sha256,
        info=sha256_json(deciding(info)),
        precision=options["precision"],
        flip=options["flip"],
        sliding_window=info.sliding_window,
    )
    summary = PredictSummary(label_prompts=len(joined.by_name), unmatched_labels=joined.unmatched)
    with exclusive_lock(root, "archive"):
        folder = prepare_results(root, manifest, overwrite)
        done = finished(folder, wanted)
        summary.skipped, summary.table = len(done), folder
        cores = os.cpu_count() or 1
        workers = workers or max(1, cores // _CORES_PER_WORKER)
        worker_kwargs = {
            "model": model.resolve(),
            "options": options,
            "folder": folder,
            "threads": max(1, cores // workers),
        }
        todo = {name: value for name, value in wanted.items() if name not in done}
        _predict(todo, worker_kwargs, workers, summary, progress)
    summary.pass_over(passed_over)
    return summary


def _predict(
    todo: Mapping[str, tuple[str, str]],
    worker_kwargs: dict[str, Any],
    workers: int,
    summary: PredictSummary,
    progress: Progress,
) -> None:
    """Predict the images, and count them."""
    total = len(todo) + summary.skipped
    progress(summary.skipped, total)
    parts = _split_into_parts([[name, *value] for name, value in todo.items()], workers)
    for failed, size in _run_workers(parts, worker_kwargs, workers):
        summary.failed += failed.items()
        summary.done += size - len(failed)
        progress(summary.skipped + summary.done + len(summary.failed), total)
    if summary.done + len(summary.failed) < len(todo):  # a part was given up
        counted = {name for name, _ in summary.failed} | finished(worker_kwargs["folder"], todo)
        reason = f"its worker died {_RETRIES + 1} times, perhaps for lack of memory"
        summary.failed += [(name, reason) for name in todo if name not in counted]


def _split_into_parts(images: list[list[str]], workers: int) -> list[list[list[str]]]:
    """Split images into lists of one size, as large as possible, but enough for all workers."""
    size = -(-len(images) // (workers * _PARTS_PER_WORKER))
    size = max(1, min(PART_IMAGES, size))
    return [images[start : start + size] for start in range(0, len(images), size)]


def _run_workers(
    parts: list[list[list[str]]], worker_kwargs: dict[str, Any], workers: int
) -> Iterator[tuple[dict[str, str], int]]:
    """Predict parts with Ray Data.

    Yields:
        Of each part, as it ends, the images that failed with the reason, and its size. A part that
        was given up, because its worker died each time, is skipped.
    """
    if not parts:
        return
    with running_ray(workers):
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # dxseg has its own
        context.max_errored_blocks = -1
        rows = [{"part": json.dumps(part), "size": len(part)} for part in parts]
        items = ray.data.from_items(rows, override_num_blocks=len(rows))
        with warnings.catch_warnings():
            # Nothing else bounds the retries before Ray 2.64, which pyproject.toml excludes.
            warnings.filterwarnings("ignore", message="`ray_remote_args_fn` is deprecated")
            results = items.map_batches(
                PartPredictor,
                fn_constructor_kwargs=worker_kwargs,
                batch_size=1,
                concurrency=min(workers, len(rows)),
                num_cpus=1,
                ray_remote_args_fn=_retry_policy,
            )
        for result in results.iter_rows():
            yield json.loads(result["failed"]), result["size"]


def _retry_policy() -> dict[str, int]:
    """A worker that dies is replaced, and its part is tried again, but not for ever."""
    return {"max_restarts": -1, "max_task_retries": _RETRIES}
