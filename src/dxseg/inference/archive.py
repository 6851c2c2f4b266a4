"""Predict an archive on Ray: workers that hold the model, and one Parquet table of results.

Ray Data hands parts of the list of images to a pool of actors, no more than each can have under
way; where an actor dies, Ray starts another and gives it the same part. Only this process writes
results, so an image has one row, however often its part was begun.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from dxseg.data.tables import harmless_path, read_table, separator_of
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.bundle import BundleInfo
from dxseg.inference.inputs import Item, find_images
from dxseg.inference.label_table import KEYS, KnownLabels, known_labels
from dxseg.inference.predict import PredictSummary, Progress
from dxseg.inference.predictor import Predictor
from dxseg.inference.rows import KNOWN, image_values, model_name
from dxseg.inference.writers import Row, encode_png, mask_levels

_FLUSH_SECONDS = 30.0
_PART_IMAGES = 64
"""At least so many images are an actor's call; they are begun again where it dies."""

_DEATHS = 5
"""So often a worker may die of the same part before the job gives up."""


def predict_archive(
    inputs: str | Path | Sequence[str | Path],
    bundle: str | Path,
    output: str | Path,
    *,
    labels: str | Path | Mapping[str, str] | None = None,
    overwrite: bool = False,
    workers: int = 1,
    address: str | None = None,
    device: str = "cpu",
    batch_size: int = 8,
    backend: str | None = None,
    precision: str = "float32",
    flip: bool = False,
    windows: bool = False,
    progress: Progress | None = None,
) -> PredictSummary:
    """Predict images into `predictions.parquet`, a folder of parts that reads as one table.

    A row an image: the columns of `predictions.csv` (see `predict_files`) with types, and `mask`,
    a PNG. Called again, what has a row that is ok, of the same file, model and known label, is
    skipped; what failed is tried again. A killed call loses at most what came in since the last
    part was written, half a minute.

    Args:
        inputs: As of `predict_files`, images only; or one table of paths, CSV or Parquet, whose
            column is one of `KEYS`. Paths are relative to the table's folder.
        bundle: The model folder, or an exported .onnx file; workers read it from the same place.
        output: The folder to write to, made if absent.
        labels: As of `predict_files`.
        overwrite: Predict everything anew.
        workers: How many hold the model; cores of this machine are shared out to them.
        address: Of a Ray cluster, such as "auto"; this machine alone if absent.
        device: As torch names it; with "cuda", each worker has a GPU of its own.
        batch_size: Images through the network at once.
        backend: torch, onnxruntime or openvino; what suits the model if absent.
        precision: float32, or bfloat16 for torch and openvino.
        flip: Whether each image is also predicted mirrored, and the mean taken.
        windows: Whether images larger than the network's input are cut into windows.
        progress: Called with the number of images finished or skipped, and of all.

    Raises:
        UsageError: Ray is not installed, there is no image, or there are volumes.
        DxsegError: The bundle is bad, the output folder cannot be written or holds results of
            another kind, or workers died too often.
    """
    _require_ray()
    from dxseg.inference.parquet_results import FOLDER, ParquetResults

    if workers < 1:
        raise UsageError(f"workers {workers}: expected at least 1")
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    items = _images(given)
    settings = {"backend": backend, "precision": precision, "flip": flip, "windows": windows}
    options = {"folder": bundle, "device": device, "batch_size": batch_size, **settings}
    info = Predictor.from_bundle(**options).info  # type: ignore[arg-type]
    known = KnownLabels() if labels is None else known_labels(labels, items, info)
    folder = Path(output).resolve() / FOLDER
    report = progress or (lambda _done, _all: None)
    try:
        if overwrite:
            shutil.rmtree(folder, ignore_errors=True)
        results = ParquetResults(folder, info)
        waiting = _waiting(results, items, info, known.by_name)
        summary = PredictSummary(
            skipped=len(items) - len(waiting),
            known=len(known.by_name),
            unmatched_labels=known.unmatched,
        )
        report(summary.skipped, len(items))
        if waiting:
            parts = _parts(waiting, known.by_name, max(_PART_IMAGES, 8 * batch_size))
            with _ray(address, workers):
                answers = _answers(parts, options, workers, address, device)
                _collect(answers, waiting, results, summary, report)
    except OSError as error:
        raise DxsegError(f"{folder}: cannot write there ({error})") from error
    return summary


class Worker:
    """An actor: the model in memory, a part of the list in, rows with masks out."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.predictor = Predictor.from_bundle(**options)

    def __call__(self, part: Any) -> Any:
        """Predict the images of a part, a table of name, source and known label."""
        from dxseg.inference.parquet_results import as_table

        info = self.predictor.info
        images = part.to_pylist()
        known = {image["name"]: image["known"] for image in images if image["known"]}
        stream = self.predictor.stream(
            ((image["name"], Path(image["source"])) for image in images), known=known
        )
        rows: list[Row] = []
        masks: list[bytes | None] = []
        for image, (name, result) in zip(images, stream, strict=True):
            row = {"name": name, "source": image["source"], "model": model_name(info)}
            if isinstance(result, DxsegError):
                rows.append(row | {"status": "failed", "error": " ".join(str(result).split())})
                masks.append(None)
                continue
            rows.append(row | {"status": "ok", **image_values(result, info)})
            masks.append(encode_png(mask_levels(result.mask, len(info.mask_classes))))
        return as_table(rows, masks, info)


def _images(given: list[str | Path]) -> list[Item]:
    """Expand the inputs.

    Raises:
        UsageError: there is none, or some are volumes.
    """
    tables = [Path(path) for path in given if Path(path).suffix.lower() in (".csv", ".parquet")]
    if tables and len(given) > 1:
        raise UsageError(f"{tables[0]}: a table of paths must be the only input; leave out others")
    items = _listed(tables[0]) if tables else find_images(given)
    for item in items:
        if item.is_volume:
            raise UsageError(
                f"{item.source}: a volume; the engine ray takes images, so predict volumes "
                "without it"
            )
        if not item.name.isprintable():
            raise UsageError(f"{item.name!r}: Parquet holds text only; rename the file")
    return items


def _listed(table: Path) -> list[Item]:
    """The images of a table of paths, named by what they have beyond their common folder."""
    if table.suffix.lower() == ".csv":
        frame = read_table(table, separator=separator_of(table))
    else:
        import pandas as pd

        try:
            frame = pd.read_parquet(table)
        except (OSError, ValueError) as error:
            raise UsageError(f"{table}: cannot be read as Parquet ({error})") from error
    column = next((key for key in KEYS if key in frame), None)
    if column is None or not len(frame):
        raise UsageError(
            f"{table}: expected rows with one of the columns {', '.join(KEYS)}; it has "
            f"{', '.join(map(str, frame.columns))}"
        )
    home = Path(os.path.abspath(table)).parent  # noqa: PTH100 - resolve() follows links
    paths = dict.fromkeys(Path(os.path.normpath(home / str(path))) for path in frame[column])
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return [Item(harmless_path(path.relative_to(root).as_posix()), path) for path in paths]


def _waiting(
    results: Any, items: list[Item], info: BundleInfo, known: Mapping[str, str]
) -> dict[str, Item]:
    """The images without a row that still holds; other rows of them are removed."""
    waiting = {item.name: item for item in items}
    asked = dict(waiting)

    def keep(row: dict[str, str]) -> bool:
        item = asked.get(row["name"])
        if item is None:
            return True
        if row["status"] == "ok" and row["source"] != str(item.source):
            raise UsageError(
                f"{results.folder}: holds results of {row['source']} under the name {item.name}, "
                f"which is now {item.source}; choose another output folder, or overwrite"
            )
        told = model_name(info), known.get(item.name, "")
        holds = row["status"] == "ok" and (row["model"], row.get(KNOWN, "")) == told
        return holds and waiting.pop(item.name, None) is not None

    results.open(keep)
    return waiting


def _parts(waiting: Mapping[str, Item], known: Mapping[str, str], size: int) -> list[Any]:
    """The list in parts, of an actor's call each."""
    import pyarrow as pa

    rows = [
        {"name": name, "source": str(item.source), "known": known.get(name, "")}
        for name, item in waiting.items()
    ]
    return [pa.Table.from_pylist(rows[at : at + size]) for at in range(0, len(rows), size)]


def _answers(
    parts: list[Any], options: dict[str, Any], workers: int, address: str | None, device: str
) -> Iterator[Any]:
    """Tables of results, as they come; only as many parts are under way as workers can take."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    pool = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2)
    cores = 1 if address else max(1, (os.cpu_count() or 1) // workers)
    answers = ray.data.from_arrow(parts).map_batches(
        Worker,
        fn_constructor_args=(options,),
        batch_size=None,
        batch_format="pyarrow",
        compute=pool,
        num_cpus=cores,
        num_gpus=1 if device.startswith("cuda") else None,
        max_restarts=_DEATHS,
        max_task_retries=_DEATHS,
    )
    yield from answers.iter_batches(batch_size=None, batch_format="pyarrow")


def _collect(
    answers: Iterator[Any],
    waiting: dict[str, Item],
    results: Any,
    summary: PredictSummary,
    report: Progress,
) -> None:
    """Write each image's row once."""
    import pyarrow as pa
    from ray.exceptions import RayError

    from dxseg.inference.parquet_results import failed

    total = summary.skipped + len(waiting)
    written = monotonic()
    try:
        for table in answers:
            names = table["name"].to_pylist()
            fresh = [waiting.pop(name, None) is not None for name in names]
            new = table.filter(pa.array(fresh, pa.bool_()))
            results.add(new)
            summary.failed += (reasons := failed(new))
            summary.done += len(new) - len(reasons)
            if monotonic() - written > _FLUSH_SECONDS:
                results.flush()
                written = monotonic()
            report(total - len(waiting), total)
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DxsegError(
            f"the workers on Ray failed ({reason}); {len(waiting)} images have no result; the same "
            "command continues"
        ) from error
    finally:
        results.flush()
    if waiting:
        raise DxsegError(f"{len(waiting)} images came back without a result; call again")


@contextmanager
def _ray(address: str | None, workers: int) -> Iterator[None]:
    """A cluster, or Ray on this machine while the block runs."""
    import ray

    if ray.is_initialized():
        yield
        return
    # Ray reports usage to its makers unless told not to.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    alone: dict[str, Any] = {
        "num_cpus": max(os.cpu_count() or 1, workers),
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",  # heard by nobody else
    }
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else alone),
        )
    except Exception as error:  # Ray raises many kinds, plain ones too
        raise DxsegError(
            f"Ray did not start, or was not found at {address or 'this machine'} ({error}); call "
            "again, on a machine that is less busy, or without --engine ray"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_ray() -> None:
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise UsageError("--engine ray needs Ray: pip install 'dxseg[ray]'") from error
