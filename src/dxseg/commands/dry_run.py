"""The option `--dry-run` of importers: the whole import, into a folder that is thrown away."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from dxseg.data.importers.report import ImportReport
else:
    ImportReport = Any

_EXAMPLES = 5
_Options = ParamSpec("_Options")


def with_dry_run(
    importer: Callable[_Options, ImportReport],
) -> Callable[_Options, ImportReport]:
    """Make an importer obey its parameter `dry_run`: its report is all that stays.

    Args:
        importer: A command with the parameters `destination` and `dry_run`.
    """
    signature = inspect.signature(importer)

    @wraps(importer)
    def run(*args: _Options.args, **kwargs: _Options.kwargs) -> ImportReport:
        given = signature.bind(*args, **kwargs)
        if not given.arguments.get("dry_run"):
            return importer(*args, **kwargs)
        destination = Path(given.arguments["destination"])
        with tempfile.TemporaryDirectory(prefix="dxseg-dry-run-") as folder:
            given.arguments["destination"] = Path(folder) / (destination.name or "dataset")
            return _without_dataset(importer(*given.args, **given.kwargs), destination)

    return run


def _without_dataset(report: ImportReport, destination: Path) -> ImportReport:
    """Complete a report by examples of pairs, as no dataset shows them."""
    from dxseg.data.table.dataset import Dataset

    cases = Dataset.load(report.destination).cases
    masked = cases[cases["mask"].ne("")]
    rows = (masked if len(masked) else cases).head(_EXAMPLES)
    examples = [
        f"  {image} <- {mask or 'no mask'}, {label or 'unlabeled'}"
        for image, mask, label in rows[["image", "mask", "label"]].to_numpy().tolist()
    ]
    notes = [*report.notes, f"examples, of {len(cases)} images:", *examples]
    return report.model_copy(update={"notes": notes, "destination": destination, "dry_run": True})
