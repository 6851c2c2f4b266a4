"""A model in one ONNX file: the network, and all of `model.json` in the file's metadata.

Such a file may be untrusted. It holds no code, but a runtime would load tensors from other files
and libraries for custom operators, and would run endless loops; a file with any of these is refused
before a runtime opens it. No library does this check.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from dxseg.errors import DxsegError, UsageError
from dxseg.inference.model_folder import INFO_LIMIT, read_limited
from dxseg.inference.model_info import ModelInfo, parse_info
from dxseg.models.onnx_export import INPUT, KNOWN, OUTPUTS

NumberFormat = Literal["float32", "int8"]
NUMBER_FORMATS: tuple[NumberFormat, ...] = get_args(NumberFormat)

FILE_LIMIT = 1 << 30
"""Largest size of an ONNX file, bytes."""

INFO_KEY, FORMAT_KEY, NOTICE_KEY = "dxseg.model", "dxseg.number_format", "dxseg.notice"
DIGEST_KEY = "dxseg.graph_sha256"
NOTICE = "Research software, not a medical device."
_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class OnnxModel:
    """An exported model.

    Attributes:
        content: The whole file.
        info: As in a model folder; its digest is that of the file, so that a quantized model has
            another name in predictions than its source.
        number_format: Of weights and activations.
        path: The file, for errors.
    """

    content: bytes
    info: ModelInfo
    number_format: NumberFormat
    path: Path


def input_names(info: ModelInfo) -> list[str]:
    """Names of the inputs of the model's network."""
    return [INPUT, KNOWN] if info.model.has_coarse_branch else [INPUT]


def output_names(info: ModelInfo) -> list[str]:
    """Names of the outputs of the model's network."""
    if info.model.has_coarse_branch:
        return list(OUTPUTS)
    return list(OUTPUTS[: 2 if info.model.label_head else 1])


def pack(graph: bytes, info: ModelInfo, number_format: NumberFormat) -> bytes:
    """Put `model.json` into the metadata of a graph.

    Args:
        graph: A serialized ONNX model.
        info: Of the exported model.
        number_format: Of the graph.

    Returns:
        The content of the file.
    """
    proto = _onnx().load_model_from_string(graph)
    del proto.metadata_props[:]
    entries = {
        INFO_KEY: info.model_dump_json(),
        FORMAT_KEY: number_format,
        NOTICE_KEY: NOTICE,
        DIGEST_KEY: graph_digest(proto.graph),
    }
    for key, value in entries.items():
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name, proto.producer_version = "dxseg", info.dxseg_version
    content: bytes = proto.SerializeToString()
    return content


def read_onnx(path: str | Path) -> OnnxModel:
    """Read and validate an exported model.

    Args:
        path: The file.

    Raises:
        DxsegError: It is absent, too large, damaged or not of dxseg, holds what is refused, or its
            inputs and outputs do not match its metadata.
        UsageError: The package onnx is not installed.
    """
    path = Path(path)
    return parse_onnx(read_limited(path, FILE_LIMIT), path)


def parse_onnx(content: bytes, path: Path) -> OnnxModel:
    """Validate the content of an exported model; see `read_onnx`."""
    onnx = _onnx()
    try:
        proto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's errors differ between its implementations
        raise DxsegError(f"{path}: not an ONNX file, or cut; copy it again") from error
    _refuse_hazards(proto, path)
    try:
        onnx.checker.check_model(proto)
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise DxsegError(f"{path}: not a valid ONNX model ({reason}); copy it again") from error
    # Values that are not UTF-8 come as bytes; no export has written them.
    metadata = {entry.key: entry.value for entry in proto.metadata_props if _is_text(entry.value)}
    text = metadata.get(INFO_KEY, "").encode()
    if not text or len(text) > INFO_LIMIT:
        raise DxsegError(
            f"{path}: its metadata has no readable {INFO_KEY}; expected a file written by "
            "`dxseg export onnx`"
        )
    written = metadata.get(FORMAT_KEY)
    number_format = next((one for one in NUMBER_FORMATS if one == written), None)
    if number_format is None:
        raise DxsegError(f"{path}: {FORMAT_KEY} is {written!r}; expected float32 or int8")
    info = parse_info(text, path)
    _check_interface(proto, info, path)
    if metadata.get(DIGEST_KEY, "") != graph_digest(proto.graph):
        raise DxsegError(
            f"{path}: its network does not match its {DIGEST_KEY}: the file is damaged, changed or "
            "of an earlier dxseg; copy it, or export it, again"
        )
    digest = hashlib.sha256(content).hexdigest()
    return OnnxModel(
        content, info.model_copy(update={"weights_sha256": digest}), number_format, path
    )


def _is_text(value: str | bytes) -> bool:
    return isinstance(value, str)


def graph_digest(graph: Any) -> str:
    """SHA-256 of the operators and weights of a graph: a runtime would not notice a changed bit."""
    digest = hashlib.sha256()
    for part in (*graph.node, *graph.initializer, *graph.sparse_initializer):
        digest.update(part.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise UsageError("ONNX files need the package onnx: pip install 'dxseg[onnx]'") from error
    return onnx


def _refuse_hazards(proto: Any, path: Path) -> None:
    unexpected = {entry.domain for entry in proto.opset_import} - set(_DOMAINS)
    unexpected |= {node.domain for node in proto.graph.node} - set(_DOMAINS)
    if unexpected:
        # Names that are not UTF-8 come as bytes.
        names = ", ".join(sorted(str(name)[:80] for name in unexpected))
        raise DxsegError(f"{path}: has operators of {names}, which are not of ONNX; refused")
    if proto.functions or proto.training_info:
        raise DxsegError(f"{path}: defines functions or training, which no export has; refused")
    for node in proto.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise DxsegError(
                f"{path}: has control flow ({node.op_type[:80]}), which no export has; refused"
            )
    if any(_is_external(tensor) for tensor in _tensors(proto.graph)):
        raise DxsegError(
            f"{path}: keeps tensors in other files; refused: everything must be in this one"
        )


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    sparse = list(graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _is_external(tensor: Any) -> bool:
    external = type(tensor).DataLocation.EXTERNAL
    return bool(tensor.data_location == external or tensor.external_data)


def _check_interface(proto: Any, info: ModelInfo, path: Path) -> None:
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    outputs = [value.name for value in proto.graph.output]
    names = [value.name for value in inputs]
    if names != input_names(info) or outputs != output_names(info):
        raise DxsegError(
            f"{path}: inputs {names[:5]} and outputs {outputs[:5]} are not those of its model "
            f"({input_names(info)} and {output_names(info)}); export it again"
        )
    kind = inputs[0].type.tensor_type
    sides = kind.shape.dim
    if kind.elem_type != 1 or len(sides) != 4 or sides[1].dim_value != info.preprocessing.channels:
        raise DxsegError(
            f"{path}: its input is not float32 (B, {info.preprocessing.channels}, H, W); "
            "export it again"
        )
