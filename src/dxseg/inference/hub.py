"""Models on the Hugging Face Hub: downloaded only if the name starts with `PREFIX`."""

from __future__ import annotations

from pathlib import Path

from dxseg.errors import DxsegError, UsageError

PREFIX = "hf-hub:"
"""Prefix of names on the Hugging Face Hub, as in timm."""

FILES = ("model.json", "model.safetensors")
"""The files that are downloaded of a repository, whatever else it holds."""


def local_copy(model: str | Path) -> Path:
    """Find a model's folder, downloading it if its name is `hf-hub:OWNER/NAME[@REVISION]`.

    Args:
        model: Such a name, or a path.

    Returns:
        The path itself, or the folder in the hub's cache; what is there is not downloaded again.

    Raises:
        UsageError: The name is malformed, or the extra is not installed.
        DxsegError: The hub cannot be reached, or has no such model.
    """
    if not str(model).startswith(PREFIX):
        return Path(model)
    name, _, revision = str(model).removeprefix(PREFIX).partition("@")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{model}: needs {error.name}, which is not installed; pip install 'dxseg[hub]'"
        ) from error
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(FILES)))
    except HFValidationError as error:
        raise UsageError(f"{model}: expected {PREFIX}OWNER/NAME, or with @REVISION") from error
    except OSError as error:  # raised for the hub, the network and the disk alike
        reason = str(error).strip().split("\n")[0]
        raise DxsegError(
            f"{model}: cannot be fetched ({reason}); check the name and the connection, or copy "
            "the model folder here and give its path"
        ) from error
