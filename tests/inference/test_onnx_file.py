"""An ONNX file from a stranger: what is refused, and how it is said."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from dxseg import export_onnx
from dxseg.errors import DxsegError
from dxseg.inference import onnx_file
from dxseg.inference.load import load_backend
from dxseg.inference.model_folder import read_info
from dxseg.inference.onnx_file import FORMAT_KEY, INFO_KEY, parse_onnx, read_onnx
from dxseg.inference.predictor import Predictor
from onnx_models import LABELS, make_model_folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("model_folder"), "unet")


@pytest.fixture(scope="module")
def content(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model_folder, output=path)
    return path.read_bytes()


@pytest.fixture
def proto(content: bytes) -> onnx.ModelProto:
    return onnx.load_model_from_string(content)


def refuse(proto: onnx.ModelProto, expected: str) -> None:
    with pytest.raises(DxsegError, match=expected) as caught:
        parse_onnx(proto.SerializeToString(), Path("strange.onnx"))
    assert "strange.onnx" in str(caught.value)


def sealed(proto: onnx.ModelProto) -> bytes:
    """The file after a change of its network, with the digest that fits."""
    for entry in proto.metadata_props:
        if entry.key == onnx_file.DIGEST_KEY:
            entry.value = onnx_file.graph_digest(proto.graph)
    return proto.SerializeToString()


def test_everything_of_model_json_is_in_the_file(model_folder, content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    model = read_onnx(tmp_path / "m.onnx")
    assert model.info.labels == LABELS
    assert model.number_format == "float32"
    assert model.info.weights_sha256 == hashlib.sha256(content).hexdigest()
    same = read_info(model_folder).model_copy(update={"weights_sha256": model.info.weights_sha256})
    assert model.info == same


def test_the_plain_onnx_library_reads_it_and_finds_sizes_open(proto):
    onnx.checker.check_model(proto, full_check=True)
    [image] = proto.graph.input
    batch, channels, height, width = image.type.tensor_type.shape.dim
    assert channels.dim_value == 1
    assert all(side.dim_param for side in (batch, height, width))
    assert {entry.domain for entry in proto.opset_import} == {""}


def test_tensors_in_other_files_are_refused(proto):
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    refuse(proto, "other files")


def test_tensors_in_other_files_are_refused_in_attributes_too(proto):
    tensor = TensorProto(data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["x"], value=tensor))
    refuse(proto, "other files")


def test_operators_of_other_domains_are_refused(proto):
    proto.graph.node.append(helper.make_node("Run", ["image"], ["x"], domain="com.evil"))
    refuse(proto, "com.evil")


def test_domains_that_no_operator_uses_are_refused_too(proto):
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    refuse(proto, "ai.onnx.ml")


def test_control_flow_is_refused(proto):
    body = helper.make_graph([], "forever", [], [])
    proto.graph.node.append(helper.make_node("Loop", ["", ""], ["x"], body=body))
    refuse(proto, "control flow")


def test_functions_are_refused(proto):
    proto.functions.append(
        helper.make_function("", "F", [], ["x"], [], [helper.make_opsetid("", 18)])
    )
    refuse(proto, "functions")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (INFO_KEY, "", "metadata has no"),
        (INFO_KEY, "{", "not valid JSON"),
        (INFO_KEY, '{"format_version": 99}', "format_version"),
        (INFO_KEY, '{"format_version": 2, "rule_out_threshold": 7}', "rule_out_threshold"),
        (INFO_KEY, " " * (onnx_file.INFO_LIMIT + 1), "metadata has no"),
        (FORMAT_KEY, "int4", "int4"),
    ],
)
def test_metadata_is_validated_as_model_json_is(proto, key, value, expected):
    for entry in proto.metadata_props:
        if entry.key == key:
            entry.value = value
    refuse(proto, expected)


def test_inputs_and_outputs_must_be_those_of_the_model(proto):
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "something"
    refuse(proto, "something")


def test_a_flipped_bit_of_the_weights_is_noticed(proto):
    largest = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    raw = bytearray(largest.raw_data)
    raw[len(raw) // 2] ^= 1
    largest.raw_data = bytes(raw)
    refuse(proto, "graph_sha256")


def test_channels_must_be_those_of_the_model(proto):
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    refuse(proto, "float32")


def test_operators_whose_names_are_no_text_are_refused(proto):
    proto.opset_import.add(domain="zzzz", version=1)
    content = proto.SerializeToString().replace(b"zzzz", b"\xff\xfe\xff\xfe")
    with pytest.raises(DxsegError, match=r"m\.onnx: has operators of .*not of ONNX"):
        parse_onnx(content, Path("m.onnx"))


def test_files_that_are_too_large_are_not_read(content, tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(content)
    monkeypatch.setattr(onnx_file, "FILE_LIMIT", len(content) - 1)
    with pytest.raises(DxsegError, match="larger than"):
        read_onnx(tmp_path / "m.onnx")


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_are_refused_or_read_but_never_crash(content, data):
    cut = data.draw(st.integers(0, len(content)))
    damaged = bytearray(content[:cut] if data.draw(st.booleans()) else content)
    for place in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=5)):
        if damaged:
            damaged[place] ^= data.draw(st.integers(1, 255))
    message = "damaged.onnx"
    try:
        parse_onnx(bytes(damaged), Path("damaged.onnx"))
    except DxsegError as error:
        message = str(error)
    assert "damaged.onnx" in message


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_that_answers_with_another_shape_is_an_error(proto, tmp_path, backend):
    # Valid ONNX, and the output's declared shape is open: only running it shows the lie.
    last = proto.graph.node[-1]
    last.output[0] = "inner"
    proto.graph.node.append(helper.make_node("GlobalMaxPool", ["inner"], ["mask_logits"]))
    (tmp_path / "m.onnx").write_bytes(sealed(proto))
    predictor = Predictor.from_folder(tmp_path / "m.onnx", backend=backend)
    with pytest.raises(DxsegError, match=r"m\.onnx.*mask_logits"):
        predictor.predict([np.zeros((20, 30, 1), np.uint8)])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_that_a_runtime_refuses_is_an_error(proto, tmp_path, backend):
    proto.graph.node[0].op_type = "NoSuchOperator"
    (tmp_path / "m.onnx").write_bytes(sealed(proto))
    with pytest.raises(DxsegError, match=r"m\.onnx"):
        load_backend(tmp_path / "m.onnx", backend)
