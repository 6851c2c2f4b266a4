"""The verb `dxseg reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dxseg.commands.terminal import complain, err, out
from dxseg.errors import DxsegError

_SHOWN = 10


def reproduce_command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    output: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the second run; RUN-reproduced if absent."),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="The dataset, if it has moved since.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Of a figure, where the same bits cannot be expected.")
    ] = 0.02,
) -> None:
    """Train a run again from what it wrote down, and compare weights and figures."""
    from dxseg import api

    result = api.reproduce(run, output, dataset=dataset, tolerance=tolerance, console=err)
    weights = "the same to the bit" if result.same_weights else "not the same to the bit"
    if result.weight_difference:
        weights += f" (largest relative difference {result.weight_difference:.2g})"
    asked = "the same bits" if result.exact else f"figures within {tolerance:g}"
    out.print(
        f"Asked for: {asked}. Weights: {weights}. Second run: {result.folder}", soft_wrap=True
    )
    if result.reproduced:
        out.print("Reproduced.")
        return
    for line in result.differences[:_SHOWN]:
        complain(line)
    more = len(result.differences) - _SHOWN
    complain(f"{run}: not reproduced" + (f"; {more} more differences" if more > 0 else ""))
    raise typer.Exit(DxsegError.exit_code)
