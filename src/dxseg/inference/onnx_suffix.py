"""What names an ONNX file; apart from `onnx_file`, which loads PyTorch."""

from __future__ import annotations

from pathlib import Path

SUFFIX = ".onnx"


def is_onnx(path: str | Path) -> bool:
    """Whether the path is that of an ONNX file, by its suffix."""
    return Path(path).suffix.lower() == SUFFIX
