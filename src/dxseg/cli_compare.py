"""The verb `dxseg compare`: evaluated runs, or an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dxseg.commands.terminal import end_with, err, out
from dxseg.errors import UsageError


def compare_command(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of evaluated runs, or one experiment file (.yaml)."),
    ],
    reference: Annotated[
        str | None,
        typer.Option(help="Of runs: the method others are compared with; the first if absent."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="Folder for the tables, or of the experiment.")
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(help="Of an experiment: processes at a time; 0: only tables of what is done."),
    ] = 1,
    validation_only: Annotated[
        bool,
        typer.Option("--validation-only", help="Of an experiment: leave the test cases alone."),
    ] = False,
) -> None:
    """Compare methods on the same test cases; train them first if given an experiment file."""
    if any(path.suffix in (".yaml", ".yml") for path in runs):
        _experiment(runs, reference, output, jobs, validation_only)
        return
    if jobs != 1 or validation_only:
        raise UsageError("--jobs and --validation-only are for an experiment file (.yaml)")
    from dxseg import api

    comparison = api.compare(runs, reference=reference, output=output)
    out.print(comparison.markdown, soft_wrap=True)


def _experiment(
    paths: list[Path],
    reference: str | None,
    output: Path | None,
    jobs: int,
    validation_only: bool,
) -> None:
    if len(paths) != 1:
        raise UsageError(
            "an experiment file stands alone: dxseg compare EXPERIMENT.yaml --out FOLDER"
        )
    if reference is not None:
        raise UsageError(
            "--reference: the experiment file names its reference; leave the option out"
        )
    if output is None:
        raise UsageError(f"{paths[0]}: an experiment needs a folder; name it with --out")
    from dxseg import api

    outcome = api.compare_experiment(
        paths[0], output, jobs=jobs, validation_only=validation_only, console=err
    )
    out.print(outcome.markdown, soft_wrap=True)
    out.print(f"Report: {outcome.report}", soft_wrap=True)
    end_with(outcome.failures.items())
