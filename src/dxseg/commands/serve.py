"""The command that serves a model over HTTP."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from dxseg.commands.options import PYTHON_ONLY, Backend, StrPath
from dxseg.commands.terminal import err, out
from dxseg.errors import UsageError


def serve(
    model: StrPath,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: StrPath | None = None,
    dataset: StrPath | None = None,
    suggestions: StrPath | None = None,
    train: bool = False,
    train_after: int | None = None,
    queue: int = 32,
    batch_size: int = 8,
    max_megabytes: float = 64.0,
    max_megapixels: float = 16.0,
    upload_timeout: float = 30.0,
    timeout: float = 60.0,
    device: str = "cpu",
    backend: Backend | None = None,
    ready: Annotated[Callable[[str], None] | None, PYTHON_ONLY] = None,
) -> None:
    """Serve a model over HTTP, with a page to view and correct masks. Not for clinical use.

    Runs until SIGINT or SIGTERM.

    Args:
        model: Folder of a run or of a model, an exported `.onnx` file, or `hf-hub:OWNER/NAME`.
        host: Address to listen on; any but loopback needs a token.
        port: Port to listen on; 0 for any free one.
        token_file: File with the bearer token of the clients; default: with a dataset, a new one.
        dataset: Dataset that masks are saved into from the page; default: nothing is saved.
        suggestions: Table of `dxseg suggest`: the order of the cases.
        train: Allow training with the saved masks from the page while predictions continue; the
            new model is compared with the current one, then offered. Needs a finished run as model.
        train_after: Number of new masks after which a training starts by itself; default: never.
        queue: Maximum number of images in flight; beyond it requests get 429.
        batch_size: Batch size.
        max_megabytes: Maximum size of a request.
        max_megapixels: Maximum size of an image.
        upload_timeout: Seconds allowed for sending a request.
        timeout: Seconds allowed for the prediction itself.
        device: Torch device: `cpu`, `cuda`, `cuda:1`, ...
        backend: Inference backend; default: `torch` for a folder, `onnxruntime` for `.onnx`.
        ready: Called with the address once the server listens; a new token is its fragment, which
            browsers keep to themselves. Default: prints the address.

    Raises:
        UsageError: A limit or the token is wrong, a token, a dataset or a run is needed, another
            server trains on the dataset, the extra `serve` is not installed, or the backend cannot
            run the model.
        DxsegError: The model, the dataset or the suggestions cannot be read, or the port is in use.
    """
    try:
        from dxseg.server.uvicorn_server import run_server
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the server needs {error.name}, which is not installed; pip install 'dxseg[serve]'"
        ) from error
    from dxseg.inference.model_folder import find_model_folder
    from dxseg.inference.predictor import Predictor
    from dxseg.server.case_queue import CaseQueue
    from dxseg.server.retraining.models import find_run
    from dxseg.server.retraining.trainer import Trainer
    from dxseg.server.settings import Settings, read_token

    if suggestions is not None and dataset is None:
        raise UsageError("suggestions without a dataset; give its folder too (--dataset)")
    if train and dataset is None:
        raise UsageError("train without a dataset; give its folder too (--dataset)")
    if train_after is not None and not train:
        raise UsageError(f"train_after {train_after} without training; add --train")
    token = None if token_file is None else read_token(token_file)
    fragment = ""
    if dataset is not None and token is None:
        token = secrets.token_urlsafe(32)
        fragment = f"/#token={token}"

    def print_address(url: str) -> None:
        out.print(f"Serving {model} at {url} ; Ctrl-C ends it.", soft_wrap=True)
        if dataset is None:
            err.print("Without --dataset the page can correct masks, but not save them.")
        err.print("Research software, not a medical device: not for diagnosis or treatment.")

    settings = Settings(
        host=host,
        token=token,
        queue=queue,
        max_bytes=_times_2_to_20("max_megabytes", max_megabytes),
        max_pixels=_times_2_to_20("max_megapixels", max_megapixels),
        upload_seconds=upload_timeout,
        seconds=timeout,
    )
    folder, announce = find_model_folder(model), ready or print_address
    load = partial(Predictor.from_folder, device=device, batch_size=batch_size, backend=backend)
    predictor, cases, trainer = load(folder), None, None
    if dataset is not None:
        table = None if suggestions is None else Path(suggestions)
        cases = CaseQueue(dataset, predictor.info, table)
        if train:
            trainer = Trainer(cases, find_run(folder), load, train_after)
            predictor = load(trainer.run / "model")  # that was last chosen on the page, if any
    run_server(
        predictor,
        settings,
        port=port,
        cases=cases,
        trainer=trainer,
        ready=lambda url: announce(url + fragment),
    )


def _times_2_to_20(name: str, limit: float) -> int:
    """A limit in bytes or pixels, of one in megabytes or megapixels."""
    if not math.isfinite(limit):
        raise UsageError(f"{name} {limit}: expected a finite number above 0")
    return int(limit * 2**20)
