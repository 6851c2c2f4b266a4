"""The verb `dxseg serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dxseg.cli_options import BackendOption
from dxseg.commands.terminal import err, out


def serve_command(
    model: Annotated[
        Path, typer.Argument(help="Folder of a run or of a model, or an exported .onnx file.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the bearer token; needed beyond loopback.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset that masks are saved into from the page.")
    ] = None,
    suggestions: Annotated[
        Path | None, typer.Option(help="Table of `dxseg suggest`: the order of its cases.")
    ] = None,
    queue: Annotated[int, typer.Option(help="Images in hand at most; more get 429.")] = 32,
    batch_size: Annotated[int, typer.Option(help="Images through the network at once.")] = 8,
    max_megabytes: Annotated[float, typer.Option(help="Size of a request at most.")] = 64,
    max_megapixels: Annotated[float, typer.Option(help="Size of an image at most.")] = 16,
    upload_timeout: Annotated[float, typer.Option(help="Seconds to send a request.")] = 30,
    timeout: Annotated[float, typer.Option(help="Seconds to answer it after that.")] = 60,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    backend: BackendOption = None,
) -> None:
    """Serve a model over HTTP, with a page to look and correct. Not for clinical use."""
    from dxseg import api

    def ready(url: str) -> None:
        out.print(f"Serving {model} at {url} ; Ctrl-C ends it.", soft_wrap=True)
        if dataset is None:
            err.print("Without --dataset the page can correct masks, but not save them.")
        err.print("Research software, not a medical device: not for diagnosis or treatment.")

    api.serve(
        model,
        host=host,
        port=port,
        token_file=token_file,
        dataset=dataset,
        suggestions=suggestions,
        queue=queue,
        batch_size=batch_size,
        max_bytes=int(max_megabytes * 2**20),
        max_pixels=int(max_megapixels * 2**20),
        upload_seconds=upload_timeout,
        seconds=timeout,
        device=device,
        backend=backend,
        ready=ready,
    )
