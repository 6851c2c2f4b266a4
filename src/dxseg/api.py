"""The verbs: what the command line does, as functions."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from dxseg.active_learning.suggest import Suggestions, suggest_cases
from dxseg.api_data import check, split
from dxseg.api_export import export_hub, export_label_studio, export_nnunet, export_onnx
from dxseg.api_predict import predict, predict_archive
from dxseg.api_runs import compare, distill, evaluate, report, train
from dxseg.commands.demo import demo
from dxseg.data.importers.busi import import_busi
from dxseg.data.importers.csv import import_csv
from dxseg.data.importers.dicom import import_dicom
from dxseg.data.importers.folder import import_folder
from dxseg.data.importers.label_studio import import_label_studio
from dxseg.data.importers.msd import import_msd
from dxseg.data.importers.nifti import import_volumes
from dxseg.data.importers.nnunet import import_nnunet
from dxseg.evaluation.info import describe as info
from dxseg.evaluation.reproduce import reproduce
from dxseg.experiments.runner import run_experiment as compare_experiment
from dxseg.server.serve import serve

PathLike = str | Path

__all__ = [
    "check",
    "compare",
    "compare_experiment",
    "demo",
    "distill",
    "evaluate",
    "export_hub",
    "export_label_studio",
    "export_nnunet",
    "export_onnx",
    "import_busi",
    "import_csv",
    "import_dicom",
    "import_folder",
    "import_label_studio",
    "import_msd",
    "import_nnunet",
    "import_volumes",
    "info",
    "predict",
    "predict_archive",
    "report",
    "reproduce",
    "serve",
    "split",
    "suggest",
    "train",
]


def suggest(
    model: PathLike,
    dataset: PathLike,
    output: PathLike,
    *,
    count: int = 20,
    splits: PathLike | None = None,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = 8,
    console: Console | None = None,
) -> Suggestions:
    """Say which cases without a mask to annotate next.

    Args:
        model: folder of a run, or of a model.
        dataset: folder of the dataset.
        output: the table to write: case_id, rank, score and its parts.
        count: how many cases; no two of one patient or group of near-duplicates.
        splits: a splits.csv whose training cases are meant, and whose hidden masks count as absent.
        seed: of the choice.
        device: as torch names it.
        batch_size: images through the network at once.
        console: where progress is drawn.

    Raises:
        DxsegError: see :func:`dxseg.active_learning.suggest.suggest_cases`.
    """
    return suggest_cases(
        model,
        dataset,
        output,
        count=count,
        splits=splits,
        seed=seed,
        device=device,
        batch_size=batch_size,
        console=console,
    )
