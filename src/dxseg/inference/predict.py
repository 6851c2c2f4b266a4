"""Predict files into a folder: masks, overlays and a table; resumable, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dxseg.errors import DxsegError, UsageError
from dxseg.inference.bundle import BundleInfo
from dxseg.inference.inputs import Item, find_images
from dxseg.inference.predictor import Prediction, Predictor
from dxseg.inference.writers import PredictionTable, Row, write_mask_png, write_overlay_png

TABLE_FILE = "predictions.csv"
MASKS, OVERLAYS = "masks", "overlays"

Progress = Callable[[int, int], None]


@dataclass
class PredictSummary:
    """What a call of `predict_files` did.

    Attributes:
        done: Images predicted.
        skipped: Images that the table already held.
        failed: Name and reason of each image without a result.
    """

    done: int = 0
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def predict_files(
    inputs: str | Path | Sequence[str | Path],
    bundle: str | Path,
    output: str | Path,
    *,
    overwrite: bool = False,
    device: str = "cpu",
    batch_size: int = 8,
    progress: Progress | None = None,
) -> PredictSummary:
    """Predict images and write, for `sub/a.jpg`, `masks/sub/a.png` and `overlays/sub/a.png`.

    `predictions.csv` gets a row an image: name, height, width (pixels), status (ok or failed),
    p_LABEL for each label (0..1), lesion_area_px (pixels; and one column a class where there are
    several), confidence (0..1, see `Prediction.confidence`), error, source (the file) and model
    (the first digits of the weights' SHA-256). Called again, images whose row is ok, of the same
    file and model, and whose mask and overlay exist are skipped; failed ones are tried again.

    Args:
        inputs: Files, folders (searched through all levels) or patterns; names in the output are
            relative to the folder they share.
        bundle: The model folder.
        output: The folder to write to, made if absent; nothing is written outside it.
        overwrite: Predict everything anew and start the table anew.
        device: As torch names it.
        batch_size: Images through the network at once.
        progress: Called with the number of images finished or skipped, and of all.

    Raises:
        UsageError: No image was found, two would share a result, or the output folder holds
            results of other files.
        DxsegError: The bundle is bad, or the output folder cannot be written.
    """
    root = Path(output).resolve()
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    items = find_images(given, skip=[root / MASKS, root / OVERLAYS])
    predictor = Predictor.from_bundle(bundle, device, batch_size)
    table = PredictionTable(root / TABLE_FILE, _columns(predictor.info))
    try:
        _claim(root, overwrite)
        finished = _Finished(root, items, predictor.info)
        table.open(finished.keep)
        todo = [item for item in items if item.name not in finished.names]
        summary = PredictSummary(skipped=len(items) - len(todo))
        with table:
            _predict(predictor, todo, root, table, summary, progress or (lambda _done, _all: None))
    except OSError as error:
        raise DxsegError(f"{root}: cannot write there ({error})") from error
    return summary


def _predict(
    predictor: Predictor,
    todo: list[Item],
    root: Path,
    table: PredictionTable,
    summary: PredictSummary,
    progress: Progress,
) -> None:
    total = len(todo) + summary.skipped
    progress(summary.skipped, total)
    sources = ((item.name, item.source) for item in todo)
    results = predictor.stream(sources, keep_images=True)
    for item, (_, result) in zip(todo, results, strict=True):
        row = dict.fromkeys(table.columns, "")
        row |= {"name": item.name, "source": str(item.source), "model": _model(predictor.info)}
        try:
            if isinstance(result, DxsegError):
                raise result
            _write(root, item, result, predictor.info)
            row |= {"status": "ok", **_values(result, predictor.info)}
            summary.done += 1
        except (DxsegError, OSError) as error:
            reason = " ".join(str(error).split())
            _remove(root, item)
            row |= {"status": "failed", "error": reason}
            summary.failed.append((item.name, reason))
        # Last: a row promises that its files are there.
        table.append(row)
        progress(summary.done + summary.skipped + len(summary.failed), total)


def _columns(info: BundleInfo) -> list[str]:
    areas = [f"lesion_area_px_{name}" for name in info.mask_classes]
    return [
        *("name", "height", "width", "status"),
        *(f"p_{label}" for label in info.labels),
        "lesion_area_px",
        *(areas if len(areas) > 1 else ()),
        *("confidence", "error", "source", "model"),
    ]


def _values(prediction: Prediction, info: BundleInfo) -> Row:
    height, width = prediction.mask.shape
    probabilities = prediction.label_probabilities or {}
    row = {f"p_{label}": f"{value:.6f}" for label, value in probabilities.items()}
    row |= {
        "height": str(height),
        "width": str(width),
        "lesion_area_px": str(int((prediction.mask > 0).sum())),
        "confidence": f"{prediction.confidence:.6f}",
    }
    if len(info.mask_classes) > 1:
        for value, name in enumerate(info.mask_classes, start=1):
            row[f"lesion_area_px_{name}"] = str(int((prediction.mask == value).sum()))
    return row


def _model(info: BundleInfo) -> str:
    return info.weights_sha256[:12]


def _write(root: Path, item: Item, prediction: Prediction, info: BundleInfo) -> None:
    mask_path, overlay_path = _target(root, MASKS, item), _target(root, OVERLAYS, item)
    assert prediction.image is not None, "the stream keeps images"
    write_overlay_png(
        overlay_path, prediction.image, prediction.mask, caption=_caption(prediction, info)
    )
    write_mask_png(mask_path, prediction.mask, len(info.mask_classes))


def _caption(prediction: Prediction, info: BundleInfo) -> str:
    probabilities = prediction.label_probabilities or {}
    ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
    shown = [pair for pair in ranked if pair[1] >= 0.5] if info.multi_label else ranked[:1]
    return ", ".join(f"{label} {value:.2f}" for label, value in shown)


def _target(root: Path, kind: str, item: Item) -> Path:
    path = root / kind / f"{item.stem}.png"
    # A link that lies in the output folder must not lead the writing elsewhere.
    if not path.parent.resolve().is_relative_to(root):
        raise DxsegError(f"{path.parent}: a link leads outside {root}; remove it")
    return path


def _remove(root: Path, item: Item) -> None:
    """Leave no result of an earlier call beside a row that says failed."""
    for kind in (MASKS, OVERLAYS):
        path = root / kind / f"{item.stem}.png"
        if path.parent.resolve().is_relative_to(root) and path.is_file():
            path.unlink()


def _claim(root: Path, overwrite: bool) -> None:
    root.mkdir(parents=True, exist_ok=True)
    table = root / TABLE_FILE
    if overwrite:
        table.unlink(missing_ok=True)
        return
    strangers = [kind for kind in (MASKS, OVERLAYS) if (root / kind).exists()]
    if strangers and not table.exists():
        raise UsageError(
            f"{root}: has {' and '.join(strangers)} but no {TABLE_FILE}, so they are not of "
            "`dxseg predict`; choose another output folder, or overwrite"
        )


def _written(path: Path) -> bool:
    """Whether a file is there; a power cut may have left an empty one."""
    return path.is_file() and path.stat().st_size > 0


class _Finished:
    """Decides which rows of an earlier call still hold."""

    def __init__(self, root: Path, items: list[Item], info: BundleInfo) -> None:
        self.names: set[str] = set()
        self._root, self._model = root, _model(info)
        self._items = {item.name: item for item in items}

    def keep(self, row: Row) -> bool:
        """Keep rows of other images and rows that still hold; drop what is predicted anew."""
        item = self._items.get(row["name"])
        if item is None:
            return True
        if row["status"] != "ok" or item.name in self.names:
            return False
        if row["source"] != str(item.source):
            raise UsageError(
                f"{self._root}: holds results of {row['source']} under the name {item.name}, "
                f"which is now {item.source}; choose another output folder, or overwrite"
            )
        if row["model"] != self._model or not all(
            _written(_target(self._root, kind, item)) for kind in (MASKS, OVERLAYS)
        ):
            return False
        self.names.add(item.name)
        return True
