"""The verb `dxseg predict`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dxseg.cli_options import BackendOption
from dxseg.commands.terminal import end_with, err, out
from dxseg.errors import UsageError

if TYPE_CHECKING:
    from dxseg.inference.files.predict import PredictSummary


class Engine(StrEnum):
    """What runs the predictions."""

    LOCAL = "local"
    RAY = "ray"


def predict_command(
    model: Annotated[
        Path, typer.Argument(help="Folder of a run or of a model, or an exported .onnx file.")
    ],
    inputs: Annotated[
        list[str], typer.Argument(help="Images, NIfTI volumes, folders, or quoted patterns.")
    ],
    output: Annotated[Path, typer.Option("--out", help="Folder for masks and predictions.csv.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="Table of known diagnoses, with the columns file and label."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Predict again what is done.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    batch_size: Annotated[int, typer.Option(help="Images through the network at once.")] = 8,
    overlays: Annotated[
        bool, typer.Option("--overlays/--no-overlays", help="Outlines drawn over the images.")
    ] = True,
    slice_overlays: Annotated[
        bool, typer.Option("--slice-overlays", help="Overlays of a volume's slices with a lesion.")
    ] = False,
    backend: BackendOption = None,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    flip: Annotated[
        bool, typer.Option("--flip", help="Average over the mirrored image: twice the time.")
    ] = False,
    windows: Annotated[
        bool, typer.Option("--windows", help="Cut large images into windows; keep their scale.")
    ] = False,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="A DICOM SEG for what is DICOM; names the patient.")
    ] = False,
    engine: Annotated[
        Engine, typer.Option(help="ray: worker processes, results in Parquet; images only.")
    ] = Engine.LOCAL,
    workers: Annotated[
        int | None, typer.Option(help="Of engine ray; one for two cores if absent.")
    ] = None,
) -> None:
    """Segment images (a mask, an overlay, a row of predictions.csv) and volumes (a label map)."""
    from dxseg import api

    shared: dict[str, Any] = {
        "labels": labels,
        "overwrite": overwrite,
        "batch_size": batch_size,
        "backend": backend,
        "precision": precision,
        "flip": flip,
        "windows": windows,
        "console": err,
    }
    if engine is Engine.RAY:
        local = {
            "--slice-overlays": slice_overlays,
            "--dicom-seg": dicom_seg,
            "--device": device != "cpu",
        }
        for option in (name for name, given in local.items() if given):
            raise UsageError(f"{option} cannot be had with --engine ray; leave one of them out")
        archived = api.predict_archive(inputs, model, output, workers=workers, **shared)
        _tell(archived, output / "results", labels)
        return
    if workers is not None:
        raise UsageError("--workers is of --engine ray; add it, or leave --workers out")
    summary = api.predict(
        inputs,
        model,
        output,
        device=device,
        overlays=overlays,
        slice_overlays=slice_overlays,
        dicom_seg=dicom_seg,
        **shared,
    )
    _tell(summary, output / "predictions.csv", labels)


def _tell(summary: PredictSummary, table: Path, labels: Path | None) -> None:
    """Print how it went; ends the command with 1 if something failed."""
    out.print(
        f"{summary.done} predicted, {summary.skipped} already done, {len(summary.failed)} failed. "
        f"Table: {table}",
        soft_wrap=True,
    )
    if labels is not None:
        places = ", ".join(summary.unmatched_labels[:10])
        more = ", ..." if len(summary.unmatched_labels) > 10 else ""
        left = f"; {len(summary.unmatched_labels)} rows fit no file: {places}{more}"
        out.print(
            f"Known labels: {summary.label_prompts}{left if summary.unmatched_labels else ''}.",
            soft_wrap=True,
        )
    end_with(summary.failed)
