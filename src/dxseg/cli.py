"""The command line: parse, call one verb, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dxseg import cli_import_volumes  # noqa: F401 - adds its verbs to the importer
from dxseg.cli_check import check_command
from dxseg.cli_compare import compare_command
from dxseg.cli_distill import distill_command
from dxseg.cli_export import exporter
from dxseg.cli_import import importer
from dxseg.cli_options import BackendOption
from dxseg.cli_predict import predict_command
from dxseg.cli_reproduce import reproduce_command
from dxseg.cli_serve import serve_command
from dxseg.cli_suggest import suggest_command
from dxseg.commands.terminal import Verbs, err, methods_table, out, value_table
from dxseg.config import DEFAULT_METHOD
from dxseg.errors import UsageError

# Heavy libraries are imported by the verbs, so that --help answers at once.

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Lesion segmentation for people who have many diagnoses and few masks. "
    "Research software, not a medical device.",
)
app.add_typer(importer, name="import")
app.add_typer(exporter, name="export")
app.command("check")(check_command)
app.command("compare")(compare_command)
app.command("distill")(distill_command)
app.command("predict")(predict_command)
app.command("reproduce")(reproduce_command)
app.command("serve")(serve_command)
app.command("suggest")(suggest_command)

DatasetArgument = Annotated[Path, typer.Argument(help="Folder with dataset.yaml and cases.csv.")]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.")]


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--out", help="Folder for phantoms and runs.")] = Path(
        "dxseg-demo"
    ),
    seed: Annotated[int, typer.Option(help="Of phantoms, masks and networks.")] = 0,
) -> None:
    """Train the method and its control on ultrasound phantoms, and write a report."""
    from dxseg.commands.demo import MASKS
    from dxseg.commands.demo import demo as run_demo

    err.print(
        f"Phantoms: simulated ultrasound, no patients. Two methods learn from {MASKS} masks; the "
        "method also from the labels of all training images.",
    )
    result = run_demo(output, seed=seed, console=err)
    out.print(methods_table(result.comparison.methods, "Test phantoms"))
    out.print(f"Report: {result.report}", soft_wrap=True)


@app.command()
def split(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option("--out", help="The splits.csv to write.")],
    masks: Annotated[
        str | None, typer.Option(help="Training masks that may be used: 35, or 0.1; all if absent.")
    ] = None,
    validation_masks: Annotated[
        int | None, typer.Option(help="Validation masks that may be used; all if absent.")
    ] = None,
    split_seed: Annotated[int, typer.Option(help="Draws the split.")] = 0,
    seed: Annotated[int, typer.Option(help="Draws the masks.")] = 0,
    folds: Annotated[int, typer.Option(help="Folds over what is not test.")] = 5,
    fold: Annotated[
        int | None, typer.Option(help="The fold that validates, the others train.")
    ] = None,
) -> None:
    """Divide a dataset by patient, or by group of near-duplicate images."""
    from dxseg import api

    table = api.split(
        dataset,
        output,
        masks=_mask_budget(masks),
        validation_masks=validation_masks,
        folds=folds,
        fold=fold,
        split_seed=split_seed,
        seed=seed,
        console=err,
    )
    counts = table["split"].value_counts()
    out.print(", ".join(f"{name} {count}" for name, count in counts.items()))
    out.print(f"Written: {output}", soft_wrap=True)


@app.command()
def train(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option("--out", help="Folder of the run.")],
    masks: Annotated[
        str | None, typer.Option(help="Training masks that may be used: 35, or 0.1; all if absent.")
    ] = None,
    method: Annotated[str, typer.Option(help="See `dxseg methods`.")] = DEFAULT_METHOD,
    preset: Annotated[str, typer.Option(help="cpu or paper.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Draws masks, initialisation and batches.")] = 0,
    splits: Annotated[
        Path | None, typer.Option(help="A splits.csv to use; drawn if absent.")
    ] = None,
    stage1: Annotated[Path | None, typer.Option(help="Another run whose stage 1 is used.")] = None,
    stage2: Annotated[
        Path | None, typer.Option(help="Another run from which self-training goes on.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="SECTION.KEY=VALUE of the configuration. May be repeated."),
    ] = None,
) -> None:
    """Train a method; the same command continues an interrupted run."""
    from dxseg import api
    from dxseg.config.presets import parse_overrides
    from dxseg.training.distributed import is_rank_zero

    run = api.train(
        dataset,
        output,
        preset=preset,
        method=method,
        masks=_mask_budget(masks),
        seed=seed,
        overrides=parse_overrides(change or []),
        splits=splits,
        stage1=stage1,
        stage2=stage2,
        console=err,
    )
    if not is_rank_zero():
        return
    cases = run["cases"]
    out.print(
        f"Trained {run['method']}, seed {run['seed']}: {cases['train_masks']} training masks, "
        f"{cases['validation_masks']} validation masks.\nModel: {output / 'model'}\n"
        f"Next: dxseg evaluate {output}",
        soft_wrap=True,
    )


@app.command()
def methods() -> None:
    """List the named methods: the method and the controls it is measured against."""
    from dxseg.config.presets import load_config, method_names

    table = Table("method", "architecture", "encoder from", "learns labels", "skips")
    table.columns[0].no_wrap = True  # a name that is cut cannot be copied
    for name in method_names():
        model = load_config("cpu", name).model
        skips = [key for key, on in model.skips.model_dump().items() if on]
        dual = model.architecture == "sks"
        table.add_row(
            name,
            model.architecture,
            model.encoder_init,
            "yes" if model.requires_stage1 or model.label_head else "no",
            ", ".join(skips) if dual else "",
        )
    out.print(table)


@app.command()
def evaluate(
    run: RunArgument,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    label_prompts: Annotated[
        bool, typer.Option("--known-labels", help="Tell the model each image's label.")
    ] = False,
    dataset: Annotated[
        Path | None, typer.Option(help="The dataset, if it has moved since.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    backend: BackendOption = None,
    model: Annotated[
        Path | None, typer.Option(help="An exported .onnx file to measure instead of the run's.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="Folder for the results; the run if absent.")
    ] = None,
) -> None:
    """Measure a run at native resolution; writes evaluation.json and per_image.csv."""
    from dxseg import api

    summary = api.evaluate(
        run,
        split=split,
        label_prompts=label_prompts,
        dataset=dataset,
        device=device,
        backend=backend,
        model=model,
        output=output,
        console=err,
    )
    told = ", labels known" if label_prompts else ""
    out.print(value_table(summary, f"{split}{told}: {run}"))


@app.command()
def report(
    run: RunArgument,
    compared: Annotated[
        list[Path] | None, typer.Option("--with", help="Another evaluated run. May be repeated.")
    ] = None,
) -> None:
    """Write report.html: curves, results, overlays."""
    from dxseg import api

    out.print(f"Report: {api.report(run, compared=compared or [])}", soft_wrap=True)


@app.command()
def info(
    path: Annotated[Path | None, typer.Argument(help="A dataset, a run or a model.")] = None,
) -> None:
    """Say what a folder holds; without one, the versions in use."""
    if path is None:
        from importlib.metadata import version

        names = ("dxseg", "torch", "lightning", "timm", "monai", "segmentation-models-pytorch")
        out.print(value_table({name: version(name) for name in names}, "versions"))
        return
    from dxseg import api

    out.print(value_table(api.info(path), str(path)))


def _mask_budget(text: str | None) -> int | float | None:
    """``35`` is a count, ``0.1`` a share."""
    if text is None:
        return None
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError as error:
        raise UsageError(
            f"--masks {text!r}: expected a count such as 35, or a share such as 0.1"
        ) from error
