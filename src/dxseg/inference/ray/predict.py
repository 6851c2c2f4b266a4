"""Predict archives with Ray Data: worker processes that hold the model, results in Parquet."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dxseg.errors import UsageError
from dxseg.inference.files.label_table import LabelJoin, known_labels
from dxseg.inference.files.summary import PredictSummary
from dxseg.inference.ray.cluster import import_ray, running_ray
from dxseg.inference.ray.inputs import archive_items
from dxseg.inference.ray.parquet import About, claim, finished
from dxseg.inference.ray.worker import ArchiveSettings, PartPredictor
from dxseg.io.file_lock import exclusive_lock

PART_IMAGES = 512
"""Images in a part at most: what is lost when a worker dies."""

_PARTS_A_WORKER = 4  # at least, so that no worker waits long for the last one
_CORES_A_WORKER = 2  # one of them decodes and writes while the other computes
_RETRIES = 3
"""How often a part is tried again whose worker died; an image may be what kills it."""

Progress = Callable[[int, int], None]


def predict_archive(
    inputs: str | Path | Sequence[str | Path],
    bundle: str | Path,
    output: str | Path,
    *,
    workers: int | None = None,
    labels: str | Path | Mapping[str, str] | None = None,
    overwrite: bool = False,
    settings: ArchiveSettings | None = None,
    progress: Progress | None = None,
) -> PredictSummary:
    """Predict images into `results/*.parquet`, a row and a mask for each, by worker processes.

    The columns are those of `predictions.csv`, as numbers where they are numbers, and `mask`, the
    bytes of the mask's PNG. An image that has a result from the same file, model and known label is
    skipped; one that fails has none and is tried again by the next call. So an image has one row,
    however often the call is killed and repeated. A part whose worker dies goes to another worker,
    `_RETRIES` times at most.

    Ray is used as it was initialised in this process (`ray.init`), so the workers may be on other
    machines, which then see the same files. Else it is started on this machine and stopped
    afterwards.

    Args:
        inputs: See `dxseg.inference.ray.inputs.archive_items`.
        bundle: The model folder, or an exported .onnx file.
        output: The folder to write to, made if absent.
        workers: Processes that hold the model; one for two cores if absent.
        labels: Labels that are known without looking; see `predict_files`.
        overwrite: Predict everything anew.
        settings: How to predict.
        progress: Called with the number of images finished or skipped, and of all.

    Raises:
        UsageError: Ray is not installed, no image was found, a volume is among them, two have one
            name, the folder holds other results, or the labels are not of the model or of these
            files.
        DxsegError: The bundle is bad, a table or part cannot be read, Ray does not start, or
            another process works on this folder.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers: expected 1 or more")
    import_ray()  # here, where its absence is told at once, like what is wrong with the model
    root, settings = Path(output).resolve(), settings or ArchiveSettings()
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    info = settings.load(bundle).info
    items = archive_items(given, skip=[root])
    known = LabelJoin() if labels is None else known_labels(labels, items, info)
    wanted = {item.name: (str(item.source), known.by_name.get(item.name, "")) for item in items}
    about = About(
        model=info.weights_sha256,
        precision=settings.precision,
        flip=settings.flip,
        windows=settings.windows,
    )
    summary = PredictSummary(known=len(known.by_name), unmatched_labels=known.unmatched)
    with exclusive_lock(root, "archive"):
        folder = claim(root, about, overwrite)
        done = finished(folder, wanted)
        summary.skipped = len(done)
        cores = os.cpu_count() or 1
        workers = workers or max(1, cores // _CORES_A_WORKER)
        makings = {
            "bundle": Path(bundle).resolve(),
            "settings": settings,
            "folder": folder,
            "threads": max(1, cores // workers),
        }
        todo = {name: told for name, told in wanted.items() if name not in done}
        _predict(todo, makings, workers, summary, progress or (lambda _done, _all: None))
    return summary


def _predict(
    todo: Mapping[str, tuple[str, str]],
    makings: dict[str, Any],
    workers: int,
    summary: PredictSummary,
    progress: Progress,
) -> None:
    """Have the images predicted, and note how each ended."""
    every = len(todo) + summary.skipped
    progress(summary.skipped, every)
    parts = _parts([[name, *told] for name, told in todo.items()], workers)
    for failed, size in _worked_off(parts, makings, workers):
        summary.failed += failed.items()
        summary.done += size - len(failed)
        progress(summary.skipped + summary.done + len(summary.failed), every)
    if summary.done + len(summary.failed) < len(todo):  # parts were given up
        told = {name for name, _ in summary.failed} | finished(makings["folder"], todo)
        reason = f"its worker died {_RETRIES + 1} times, perhaps for want of memory"
        summary.failed += [(name, reason) for name in todo if name not in told]


def _parts(images: list[list[str]], workers: int) -> list[list[list[str]]]:
    """Lists of images, of one size but the last: as large as may be, and enough for all workers."""
    size = -(-len(images) // (workers * _PARTS_A_WORKER))
    size = max(1, min(PART_IMAGES, size))
    return [images[start : start + size] for start in range(0, len(images), size)]


def _worked_off(
    parts: list[list[list[str]]], makings: dict[str, Any], workers: int
) -> Iterator[tuple[dict[str, str], int]]:
    """Have Ray Data work the parts off; why images of each failed, and its size, as they end.

    A part that was given up, because its worker died each time, is passed over.
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
            # Nothing else bounds the retries before Ray 2.64, which pyproject.toml leaves out.
            warnings.filterwarnings("ignore", message="`ray_remote_args_fn` is deprecated")
            answers = items.map_batches(
                PartPredictor,
                fn_constructor_kwargs=makings,
                batch_size=1,
                concurrency=min(workers, len(rows)),
                num_cpus=1,
                ray_remote_args_fn=_when_a_worker_dies,
            )
        for answer in answers.iter_rows():
            yield json.loads(answer["failed"]), answer["size"]


def _when_a_worker_dies() -> dict[str, int]:
    """Another takes its place, and its part is tried again, but not for ever."""
    return {"max_restarts": -1, "max_task_retries": _RETRIES}
