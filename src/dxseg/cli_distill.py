"""The verb `dxseg distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dxseg.commands.terminal import err, out


def distill_command(
    run: Annotated[Path, typer.Argument(help="Folder of the run that teaches.")],
    output: Annotated[Path, typer.Option("--out", help="Folder of the student's run.")],
    stage1: Annotated[
        Path | None,
        typer.Option(help="Of a run of one branch, the run whose stage 1 it started from."),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="The dataset, if it has moved since.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="SECTION.KEY=VALUE of the configuration. May be repeated."),
    ] = None,
) -> None:
    """Train a student of one branch, for deployment; the same command continues it."""
    from dxseg import api
    from dxseg.config.presets import parse_overrides
    from dxseg.training.distributed import is_rank_zero

    student = api.distill(
        run,
        output,
        overrides=parse_overrides(change or []),
        stage1=stage1,
        dataset=dataset,
        console=err,
    )
    if not is_rank_zero():
        return
    taught = student["distilled_from"]["training_images"]
    out.print(
        f"Trained {student['method']}, seed {student['seed']}: {taught['true_mask']} masks, "
        f"{taught['teacher_mask']} of the teacher, {taught['lesion_free']} lesion-free images, "
        f"{taught['left_out']} left out.\nModel: {output / 'model'}\n"
        f"Next: dxseg evaluate {output}",
        soft_wrap=True,
    )
