"""The verb `serve`: what it is told becomes settings, and what it needs is looked for."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from dxseg.errors import UsageError
from dxseg.inference.model_folder import find_model_folder
from dxseg.server.settings import Settings, read_token


def serve(
    model: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: str | Path | None = None,
    dataset: str | Path | None = None,
    suggestions: str | Path | None = None,
    queue: int = 32,
    batch_size: int = 8,
    max_bytes: int = 64 * 2**20,
    max_pixels: int = 2**24,
    upload_seconds: float = 30.0,
    seconds: float = 60.0,
    device: str = "cpu",
    backend: str | None = None,
    ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Serve a run or its model over HTTP until SIGTERM or SIGINT.

    Args:
        model: folder of a run or of a model, or an exported .onnx file.
        host: address to listen on; any but loopback needs a token.
        port: to listen on; 0 for any that is free.
        token_file: file with the bearer token that clients must show; with a dataset, one is made
            up if none is given.
        dataset: folder of a dataset that masks are saved into; without one, nothing can be saved.
        suggestions: table of `dxseg suggest`: the order in which cases without a mask are offered.
        queue: images in hand at most; more are answered with 429.
        batch_size: images through the network at once.
        max_bytes: of a request.
        max_pixels: height times width of an image.
        upload_seconds: for a client to send a request.
        seconds: from a received image to its answer.
        device: as torch names it.
        backend: torch, onnxruntime or openvino; what suits the model if absent.
        ready: called with the address once connections are taken; a token that was made up is
            its fragment, where browsers keep it to themselves.

    Raises:
        UsageError: a limit or the token is wrong, a token or a dataset is needed, the extra is not
            installed, or the backend is unknown, not installed or cannot run the model.
        DxsegError: see :func:`dxseg.server.uvicorn_server.serve_model`.
    """
    try:
        from dxseg.server.uvicorn_server import serve_model
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the server needs {error.name}, which is not installed; pip install 'dxseg[serve]'"
        ) from error
    if suggestions is not None and dataset is None:
        raise UsageError("suggestions without a dataset; give its folder too (--dataset)")
    token = None if token_file is None else read_token(token_file)
    fragment = ""
    if dataset is not None and token is None:
        token = secrets.token_urlsafe(32)
        fragment = f"/#token={token}"
    settings = Settings(
        host=host,
        token=token,
        queue=queue,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        upload_seconds=upload_seconds,
        seconds=seconds,
    )
    serve_model(
        find_model_folder(model),
        settings,
        port=port,
        device=device,
        backend=backend,
        batch_size=batch_size,
        dataset=dataset,
        suggestions=suggestions,
        ready=lambda url: ready(url + fragment),
    )
