"""Keep the results of an experiment in results/NAME, with what continuing it elsewhere needs.

    python benchmarks/keep_experiment.py OUT results/busi
    python benchmarks/keep_experiment.py OUT results/busi --restore

OUT is the folder of `dxseg experiment --out`. Kept are its tables and `runs.tar.xz`: of each run
the configuration and the metrics, image by image and epoch by epoch, without models and without
paths of the machine. `--restore` unpacks that into an empty OUT; then
`dxseg experiment results/busi/experiment.yaml --out OUT` trains only the missing runs. A restored
run has no model: where one that continues it is missing, such as its student, remove its folder,
and it is trained again.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

TABLES = ("results.csv", "curves.csv", "differences.csv", "masks_saved.csv", "retraining.csv")
ARCHIVE = "runs.tar.xz"
EXPERIMENT_FILES = ("registration.json", "experiment.yaml", "cost.json")
RUN_FILES = (
    *("config.yaml", "run.json", "evaluation.json", "per_image.csv", "stage1.json"),
    *("metrics.csv", "decisions_per_image.csv", "per_volume.csv"),
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder of `dxseg experiment --out`")
    parser.add_argument("kept", type=Path, help="results/NAME")
    parser.add_argument("--restore", action="store_true", help="from results/NAME to OUT")
    args = parser.parse_args(arguments)
    if args.restore:
        restore(args.out, args.kept)
    else:
        keep(args.out, args.kept)


def keep(out: Path, kept: Path) -> None:
    """Copy the tables, and pack what `dxseg experiment` needs of finished runs."""
    for name in TABLES:
        shutil.copy(out / name, kept / name)
    files = [out / name for name in EXPERIMENT_FILES if (out / name).is_file()]
    files += sorted((out / "splits").glob("*.csv"))
    for folder in finished(out / "runs"):
        files += [path for path in sorted(folder.rglob("*")) if path.name in RUN_FILES]
    with tarfile.open(kept / ARCHIVE, "w:xz", preset=9) as archive:
        for path in files:
            content = without_paths(path)
            entry = tarfile.TarInfo(path.relative_to(out).as_posix())  # no owner, no time
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def finished(runs: Path) -> list[Path]:
    """List the folders of evaluated runs and of finished stages 1."""
    done = {path.parent for path in runs.rglob("evaluation.json")}
    return sorted(done | {path.parents[1] for path in runs.rglob("stage1.json")})


def without_paths(path: Path) -> bytes:
    """Read a file; paths in run.json are made relative to the experiment."""
    if path.name != "run.json":
        return path.read_bytes()
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    record["dataset"] = Path(record["dataset"]).name
    for key in ("stage1_from", "stage2_from"):
        if record.get(key) is not None:
            record[key] = "/".join(Path(record[key]).parts[-3:])
    distilled = record.get("distilled_from")
    if distilled is not None:
        distilled["run"] = "/".join(Path(distilled["run"]).parts[-3:])
    return (json.dumps(record, indent=2) + "\n").encode()


def restore(out: Path, kept: Path) -> None:
    """Unpack into a folder that is empty or does not exist."""
    if out.is_dir() and any(out.iterdir()):
        raise SystemExit(f"{out}: not empty; choose another folder")
    with tarfile.open(kept / ARCHIVE, "r:xz") as archive:
        archive.extractall(out, filter="data")


if __name__ == "__main__":
    main()
