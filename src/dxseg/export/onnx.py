"""`dxseg export onnx`: write a model folder as one file that other runtimes read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel

from dxseg.errors import UsageError
from dxseg.export.calibration_data import calibration_cases
from dxseg.export.quantize import QuantizationReport, quantize
from dxseg.inference.load import export_network
from dxseg.inference.model_folder import load_model_folder
from dxseg.inference.onnx_file import SUFFIX, NumberFormat, is_onnx
from dxseg.inference.predictor import Predictor
from dxseg.io.atomic import write_bytes_atomic


class OnnxExport(BaseModel):
    """The exported file.

    Attributes:
        destination: The file.
        size: Its size, bytes.
        number_format: Of weights and activations.
        quantization: The cost of int8; None for float32.
    """

    destination: Path
    size: int
    number_format: NumberFormat
    quantization: QuantizationReport | None = None

    def __str__(self) -> str:
        cost = {} if self.quantization is None else self.quantization.model_dump(exclude_none=True)
        lines = [f"- int8, {name}: {value:.4g}" for name, value in cost.items()]
        size = f"{self.size / 1e6:.1f} MB"
        return "\n".join([*lines, f"Written: {self.destination}, {self.number_format}, {size}"])


def export_onnx(
    model: str | Path,
    destination: str | Path,
    *,
    int8: bool = False,
    calibration: Sequence[str | Path] = (),
    max_dice_loss: float = 0.01,
    run: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> OnnxExport:
    """Write a model as one ONNX file; an existing file is replaced after the new one is checked.

    Args:
        model: The model folder.
        destination: A name that ends in .onnx.
        int8: Quantize to int8.
        calibration: Folders of datasets, for int8.
        max_dice_loss: Maximum Dice drop allowed after quantization; see `QuantizationReport`.
        run: The model's run, if there is one; see `calibration_cases`.
        progress: Called with (done, total) while quantizing.

    Raises:
        UsageError: The name does not end in .onnx, calibration images are missing or not used, the
            limit is not in 0..1, or a package is not installed.
        DxsegError: The model cannot be exported, computes something else than in PyTorch, or lost
            more than allowed; nothing is written then.
    """
    target = Path(destination)
    _check_request(target, int8, calibration, max_dice_loss)
    network, info = load_model_folder(model)
    exported = export_network(network, info, Path(model))
    cost = None
    if int8:
        cases = calibration_cases(calibration, run)
        reference = Predictor(network, info)
        exported, cost = quantize(
            exported, reference, cases, max_dice_loss=max_dice_loss, progress=progress
        )
    write_bytes_atomic(target, exported.content)
    return OnnxExport(
        destination=target,
        size=len(exported.content),
        number_format=exported.number_format,
        quantization=cost,
    )


def _check_request(
    target: Path, int8: bool, calibration: Sequence[str | Path], max_dice_loss: float
) -> None:
    if not is_onnx(target):
        raise UsageError(f"{target}: expected a name that ends in {SUFFIX}")
    if int8 and not calibration:
        raise UsageError("int8 needs images: give --calibration a dataset")
    if calibration and not int8:
        raise UsageError("calibration images are for int8: add --int8, or leave them out")
    if not 0 <= max_dice_loss <= 1:
        raise UsageError(f"max_dice_loss {max_dice_loss}: expected 0 to 1")
