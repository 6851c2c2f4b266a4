"""The process that trains: a run as of `dxseg train`, then both models on the validation cases.

Started by `dxseg.server.retraining.trainer`, with the folder of the training as its argument. It
ends when its standard input does, so it never outlives the server.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from dxseg.errors import DxsegError, TerminatedError
from dxseg.server.retraining.job import COMPARISON, Job, read_job

NICENESS = 10
"""Of the process: predictions come first."""
_STOPPED = 143


def main() -> None:
    """Train and compare; a reason why not is the last line on standard error."""
    folder = Path(sys.argv[1])
    threading.Thread(target=_exit_with_server, daemon=True).start()
    os.nice(NICENESS)
    try:
        train_and_compare(folder, read_job(folder))
    except DxsegError as error:
        _fail(" ".join(str(error).split()))
    except OSError as error:
        reason = error.strerror or error
        _fail(f"{error.filename or folder}: {reason}; free some space, or change its rights")
    except TerminatedError:
        sys.exit(_STOPPED)


def train_and_compare(folder: Path, job: Job) -> None:
    """Train the run, or continue it; evaluate both models on the same validation cases.

    Args:
        folder: Of the training.
        job: Its `job.json`.

    Raises:
        DxsegError: As `train_run` and `evaluate_run`.
    """
    from dxseg.config.presets import read_config
    from dxseg.evaluation.evaluate import evaluate_run, open_run
    from dxseg.io.atomic import write_json_atomic
    from dxseg.io.progress import console
    from dxseg.training.run import train_run

    console.quiet = True
    run, dataset = folder / "run", folder / "dataset"
    config = read_config(folder / "config.yaml")
    train_run(dataset, run, config, splits_path=folder / "splits.csv")
    before = Path(job.model) / "model"
    for model, output in ((before, folder / "before"), (None, run)):
        data, predictor = open_run(run, dataset, model)
        evaluate_run(run, data, predictor, split="validation", output=output)
    write_json_atomic(folder / COMPARISON, _difference(folder / "before", run))


def _difference(before: Path, after: Path) -> dict[str, float | int | None]:
    """Dice of images with a lesion, the new model minus the one before, on the same images."""
    from dxseg.evaluation.summary import read_per_image, values_of, weighting, without_nan
    from dxseg.metrics.statistics import paired_bootstrap

    tables = [read_per_image(one / "per_image_validation.csv") for one in (after, before)]
    summary = json.loads((after / "evaluation_validation.json").read_text(encoding="utf-8"))
    new, old = (values_of(table, "dice_lesion") for table in tables)
    weights = weighting(summary["averaged_by"])
    found = paired_bootstrap(new, old, tables[0]["group"], weighting=weights)
    kept = ("low", "high", "p_value", "images", "groups")
    figures = {name: getattr(found, name) for name in kept}
    result: dict[str, float | int | None] = without_nan({"difference": found.mean, **figures})
    return result


def _exit_with_server() -> None:
    while os.read(0, 1):  # sys.stdin has a lock, held at the end of the interpreter
        pass
    os._exit(_STOPPED)


def _fail(reason: str) -> None:
    sys.stderr.write(f"\n{reason}\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
