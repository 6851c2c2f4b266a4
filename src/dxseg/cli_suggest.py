"""The verb `dxseg suggest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dxseg.commands.terminal import end_with, err, out


def suggest_command(
    model: Annotated[Path, typer.Argument(help="Folder of a run or of a model.")],
    dataset: Annotated[Path, typer.Argument(help="Folder with dataset.yaml and cases.csv.")],
    output: Annotated[Path, typer.Option("--out", help="The table to write.")],
    count: Annotated[int, typer.Option(help="How many cases to suggest.")] = 20,
    splits: Annotated[
        Path | None, typer.Option(help="A splits.csv: its training cases, and the masks it shows.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    """Say which cases without a mask to annotate next."""
    from dxseg import api

    found = api.suggest(
        model,
        dataset,
        output,
        count=count,
        splits=splits,
        seed=seed,
        device=device,
        console=err,
    )
    fewer = len(found.table) < min(count, found.candidates)
    why = "; one of each patient or group of near-duplicates" if fewer else ""
    out.print(
        f"{len(found.table)} of {found.candidates} cases without a mask suggested{why}. "
        f"Table: {output}",
        soft_wrap=True,
    )
    end_with(found.failed)
