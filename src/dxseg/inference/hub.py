"""Models that lie on a model hub: fetched only where a name says so, and only what a model is."""

from __future__ import annotations

from pathlib import Path

from dxseg.errors import DxsegError, UsageError

PREFIX = "hf-hub:"
"""What timm's names of models on the Hugging Face Hub begin with, and ours."""

FILES = ("model.json", "model.safetensors")
"""All that is fetched of a repository, whatever else it holds."""


def local_copy(model: str | Path) -> Path:
    """Give the folder of a model, fetched first if its name is `hf-hub:OWNER/NAME[@REVISION]`.

    Args:
        model: Such a name; any other is a path, and given back as it is.

    Returns:
        A path. What was fetched lies in the hub's own cache and is not fetched again.

    Raises:
        UsageError: No such name, or the extra is not installed.
        DxsegError: The hub does not answer, or has no such model.
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
    except OSError as error:  # all that the client raises for a hub, a network or a disk
        reason = str(error).strip().split("\n")[0]
        raise DxsegError(
            f"{model}: cannot be fetched ({reason}); check the name and the connection, or copy "
            "the model's folder here and name that"
        ) from error
