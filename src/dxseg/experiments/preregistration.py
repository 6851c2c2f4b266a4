"""An experiment file is registered at its first run; later it may be extended, not changed."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.experiments.experiment import Experiment, parse_experiment
from dxseg.experiments.plan import plan, select_runs
from dxseg.io.atomic import write_json_atomic, write_text_atomic

REGISTRATION_FILE = "registration.json"
EXPERIMENT_FILE = "experiment.yaml"


class Registration:
    """The registration of an output folder.

    Attributes:
        versions: The experiment file at the first run and after each extension: `sha256`, `at`,
            `text` and `added`, the names of the runs that are new in it. `sha256` is the digest of
            the file as it was registered. The committed results keep it although the keys in
            `text` were renamed later, so texts are compared, not digests.
        dataset_digest: Digest of the dataset that all runs are trained on.
    """

    def __init__(self, versions: list[dict[str, Any]], dataset_digest: str) -> None:
        self.versions = versions
        self.dataset_digest = dataset_digest

    @property
    def sha256(self) -> str:
        """Digest of the experiment file that was registered first."""
        return str(self.versions[0]["sha256"])

    @property
    def added(self) -> set[str]:
        """Names of the runs that were added later."""
        return {name for version in self.versions[1:] for name in version["added"]}


def register(experiment: Experiment, text: str, dataset: Dataset, output: Path) -> Registration:
    """Register an experiment for an output folder, or compare it with what is registered there.

    Args:
        experiment: The parsed text.
        text: Text of the experiment file.
        dataset: Its dataset.
        output: Folder of the experiment.

    Returns:
        The current registration.

    Raises:
        DxsegError: The folder contains something else, the dataset has changed, or the experiment
            file has changed by more than added methods, budgets and folds.
    """
    path = output / REGISTRATION_FILE
    version: dict[str, Any] = {
        "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "added": [],
        "text": text,
    }
    if not path.is_file():
        if output.is_dir() and any(output.iterdir()):
            raise DxsegError(
                f"{output}: not empty and not an experiment; choose another folder with --out"
            )
        registration = Registration([version], dataset.digest())
    else:
        registration = read_registration(path)
        if registration.dataset_digest != dataset.digest():
            raise DxsegError(
                f"{dataset.root}: has changed since the experiment was registered in {output}; "
                "its runs would not be comparable; choose another folder with --out"
            )
        latest = registration.versions[-1]
        if latest["text"] == text:
            return registration
        before = parse_experiment(latest["text"], str(path))
        version["added"] = _list_added_runs(before, experiment, output)
        registration.versions.append(version)
    write_json_atomic(
        path, {"dataset_digest": registration.dataset_digest, "versions": registration.versions}
    )
    write_text_atomic(output / EXPERIMENT_FILE, text)
    return registration


def read_registration(path: Path) -> Registration:
    """Read registration.json.

    Args:
        path: The file.

    Raises:
        DxsegError: It is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        versions = [
            {key: version[key] for key in ("sha256", "at", "added", "text")}
            for version in content["versions"]
        ]
        return Registration([versions[0], *versions[1:]], str(content["dataset_digest"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise DxsegError(
            f"{path}: cannot be read as a registration ({error!r}); restore it, or choose another "
            "folder with --out"
        ) from error


def _list_added_runs(before: Experiment, after: Experiment, output: Path) -> list[str]:
    """Names of the runs that are new; every other change is an error."""
    changed = _find_changes(before, after)
    if changed:
        raise DxsegError(
            f"{output}: the experiment file has changed since it was registered: "
            f"{', '.join(changed)}. "
            "What was fixed before the results were seen stays fixed: only methods, masks, folds "
            "of a method, draws and seeds may be added. Restore the file, or choose another "
            "folder with --out"
        )
    registered = {job.name for job in select_runs(plan(before))}
    return [job.name for job in select_runs(plan(after)) if job.name not in registered]


def _find_changes(before: Experiment, after: Experiment) -> list[str]:
    """What differs between two versions, apart from additions."""
    extensible = {"methods", "masks", "seeds", "draws"}
    changed = [
        key
        for key in Experiment.model_fields
        if key not in extensible and getattr(before, key) != getattr(after, key)
    ]
    if before.masks[0] != after.masks[0]:
        changed.append("masks (the first)")
    # The inputs of a run may change: an added method can provide a stage that the run would
    # otherwise train itself, with the same result.
    later = {job.name: (job.config, job.fold) for job in select_runs(plan(after))}
    for job in select_runs(plan(before)):
        if job.name not in later:
            changed.append(f"{job.name} (no longer there)")
        elif later[job.name] != (job.config, job.fold):
            changed.append(f"{job.name} (another configuration)")
    return changed[:5]
