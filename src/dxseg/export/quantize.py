"""Post-training quantization to int8, and a check of its cost in Dice."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from dxseg.errors import DxsegError, UsageError
from dxseg.export.calibration_data import CalibrationCase
from dxseg.inference.backends import Inputs, OnnxRuntimeBackend, graph_inputs
from dxseg.inference.label_prompt import encode_label_prompts
from dxseg.inference.onnx_file import OnnxModel, pack, parse_onnx
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.metrics.overlap import mean_dice
from dxseg.models.encoder import pad_to_multiple
from dxseg.models.segmentation_model import STRIDE

ENOUGH_MASKS = 10
"""Number of true masks from which the loss is measured against them."""

# The slow operators, and those between them. Left in float32: the image-level heads and the
# evidence, which take no time and whose sums over pixels need the range.
_QUANTIZED = ["Conv", "Concat", "Add", "Resize", "MaxPool", "Pad", "Relu", "Clip"]

Progress = Callable[[int, int], None]


class QuantizationReport(BaseModel):
    """Cost of int8 on the calibration images.

    Attributes:
        images: Calibration images.
        masks: Number of them with a known true mask; lesion-free images count.
        agreement: Mean Dice, 0 to 1, of the int8 model's masks and the PyTorch model's, over images
            where either has one; with several classes, over those that either has.
        dice_float32: Mean Dice of the PyTorch model against true masks; 1 where both are empty.
            None without true masks.
        dice_int8: The same of the int8 model.
        dice_loss: Compared with the limit: `dice_float32 - dice_int8` where there are
            `ENOUGH_MASKS` true masks, else `1 - agreement`.
    """

    images: int
    masks: int
    agreement: float
    dice_float32: float | None
    dice_int8: float | None
    dice_loss: float


def quantize(
    model: OnnxModel,
    reference: Predictor,
    cases: Sequence[CalibrationCase],
    *,
    max_dice_loss: float = 0.01,
    progress: Progress | None = None,
) -> tuple[OnnxModel, QuantizationReport]:
    """Quantize weights (per output channel) and activations to 8 bits.

    Args:
        model: In float32.
        reference: The same model in PyTorch.
        cases: To calibrate and to check on.
        max_dice_loss: Maximum loss allowed, 0 to 1.
        progress: Called with the number of images done, of both passes over them.

    Returns:
        The int8 model, and its cost.

    Raises:
        DxsegError: More was lost, an image cannot be read, or neither model finds a lesion, so that
            nothing can be compared.
    """
    report = progress or (lambda _done, _all: None)
    total = 2 * len(cases)
    reader = _Reader(reference, cases, lambda done: report(done, total))
    try:
        graph = _quantize_graph(model.content, reader)
    except DxsegError:
        raise
    except Exception as error:
        raise DxsegError(f"{model.path}: cannot be quantized ({error})") from error
    content = pack(graph, reference.info, "int8")
    small = parse_onnx(content, model.path)
    predictor = Predictor(OnnxRuntimeBackend(small), reference.info)
    cost = _compare(reference, predictor, cases, lambda done: report(len(cases) + done, total))
    if cost.dice_loss > max_dice_loss:
        raise DxsegError(_refusal(cost, max_dice_loss))
    return small, cost


def _refusal(cost: QuantizationReport, limit: float) -> str:
    if cost.masks >= ENOUGH_MASKS:
        how = f"Dice {cost.dice_float32:.4f} became {cost.dice_int8:.4f} on {cost.masks} masks"
    else:
        how = f"its masks agree with the PyTorch model's by a Dice of {cost.agreement:.4f}"
    return (
        f"int8 lost {cost.dice_loss:.4f} Dice, more than {limit:g} ({how}); nothing was written. "
        "Give calibration images like those to be predicted, allow more with --max-dice-loss, or "
        "export without --int8"
    )


def _quantize_graph(content: bytes, reader: _Reader) -> bytes:
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise UsageError("int8 needs ONNX Runtime: pip install 'dxseg[onnx]'") from error
    import onnx

    with tempfile.TemporaryDirectory(prefix="dxseg-int8-") as name, _quiet():
        source, prepared, target = (Path(name, f"{part}.onnx") for part in ("a", "b", "c"))
        source.write_bytes(content)
        # Symbolic shapes are not needed for convolutions, and would need another package.
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=_QUANTIZED,
        )
        proto = onnx.load(str(target))
    # The optimizer adds domains without operators; files of dxseg have only that of ONNX itself.
    used = {node.domain for node in proto.graph.node}
    kept = [entry for entry in proto.opset_import if entry.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    graph: bytes = proto.SerializeToString()
    return graph


class _Reader:
    """Iterates over calibration images, as ONNX Runtime expects it.

    Images alternate between label prompts and none, so that the ranges fit both.
    """

    def __init__(
        self,
        predictor: Predictor,
        cases: Sequence[CalibrationCase],
        progress: Callable[[int], None],
    ) -> None:
        self._inputs = self._read(predictor, cases, progress)

    def get_next(self) -> Inputs | None:
        """The next input; None at the end."""
        return next(self._inputs, None)

    @staticmethod
    def _read(
        predictor: Predictor, cases: Sequence[CalibrationCase], progress: Callable[[int], None]
    ) -> Iterator[Inputs]:
        info = predictor.info
        prompts = [(), *((label,) for label in info.labels)]
        for index, case in enumerate(cases):
            image = predictor.network_input(case.image)
            prompt = encode_label_prompts([prompts[index % len(prompts)]], info)
            yield graph_inputs(info, pad_to_multiple(image, STRIDE), prompt)
            progress(index + 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the root logger: ONNX Runtime logs advice there that users cannot follow."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _compare(
    reference: Predictor,
    quantized: Predictor,
    cases: Sequence[CalibrationCase],
    progress: Callable[[int], None],
) -> QuantizationReport:
    items = [(str(index), case.image) for index, case in enumerate(cases)]
    agreements: list[float] = []
    scores: list[tuple[float, ...]] = []
    streams = zip(reference.stream(items), quantized.stream(items), strict=True)
    for done, (case, ((_, one), (_, other))) in enumerate(zip(cases, streams, strict=True), 1):
        first, second = (_mask(prediction) for prediction in (one, other))
        if first.any() or second.any():
            agreements.append(mean_dice(first, second, case.classes))
        truth = case.truth((first.shape[0], first.shape[1]))
        if truth is not None:
            found = (mean_dice(truth, mask, case.classes) for mask in (first, second))
            scores.append(tuple(found))
        progress(done)
    if not agreements:
        raise DxsegError(
            f"the model finds no lesion in any of {len(cases)} calibration images, so that "
            "nothing can be compared; give images with lesions"
        )
    agreement = float(np.mean(agreements))
    before, after = np.mean(scores, axis=0).tolist() if scores else (0.0, 0.0)
    return QuantizationReport(
        images=len(cases),
        masks=len(scores),
        agreement=agreement,
        dice_float32=before if scores else None,
        dice_int8=after if scores else None,
        dice_loss=before - after if len(scores) >= ENOUGH_MASKS else 1 - agreement,
    )


def _mask(prediction: Prediction | DxsegError) -> NDArray[np.uint8]:
    if isinstance(prediction, DxsegError):
        raise prediction
    return prediction.mask
