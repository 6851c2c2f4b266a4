"""The verb `dxseg compare`: evaluated runs, or a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dxseg.errors import UsageError
from dxseg.terminal import end_with, err, out


def compare_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of evaluated runs, or one study file (.yaml).")
    ],
    reference: Annotated[
        str | None,
        typer.Option(help="Of runs: the arm others are compared with; the first if absent."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="Folder for the tables, or of the study.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Of a study: processes at a time; 0: only tables of what is done.")
    ] = 1,
    validation_only: Annotated[
        bool,
        typer.Option("--validation-only", help="Of a study: leave the test cases alone."),
    ] = False,
) -> None:
    """Compare arms on the same test cases; given a study file, train and evaluate them first."""
    if any(path.suffix in (".yaml", ".yml") for path in runs):
        _study(runs, reference, output, jobs, validation_only)
        return
    if jobs != 1 or validation_only:
        raise UsageError("--jobs and --validation-only are for a study file (.yaml)")
    from dxseg import api

    comparison = api.compare(runs, reference=reference, output=output)
    out.print(comparison.markdown, soft_wrap=True)


def _study(
    paths: list[Path],
    reference: str | None,
    output: Path | None,
    jobs: int,
    validation_only: bool,
) -> None:
    if len(paths) != 1:
        raise UsageError("a study file stands alone: dxseg compare STUDY.yaml --out FOLDER")
    if reference is not None:
        raise UsageError("--reference: the study file names its reference; leave the option out")
    if output is None:
        raise UsageError(f"{paths[0]}: a study needs a folder; name it with --out")
    from dxseg import api

    outcome = api.compare_study(
        paths[0], output, jobs=jobs, validation_only=validation_only, console=err
    )
    out.print(outcome.markdown, soft_wrap=True)
    out.print(f"Report: {outcome.report}", soft_wrap=True)
    end_with(outcome.failures.items())
