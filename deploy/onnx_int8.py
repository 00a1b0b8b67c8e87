"""Quantize an exported ONNX file to int8 with ONNX Runtime's quantizer."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from deploy.onnx_graph import align_channels, free_softmax, join_relu, keep_output_float

_ACTIVATIONS = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
_CALIBRATION_BATCH = 32
# Norms that no convolution could take in have no integer kernel; a softmax takes three times as long in 8 bits.
_FLOAT_TYPES = ("BatchNormalization", "LayerNormalization", "Softmax")


class _Windows(CalibrationDataReader):
    """Feeds calibration windows to the quantizer in batches."""

    def __init__(self, name: str, windows: np.ndarray) -> None:
        starts = range(0, len(windows), _CALIBRATION_BATCH)
        self._batches: Iterator[dict[str, np.ndarray]] = (
            {name: np.ascontiguousarray(windows[start : start + _CALIBRATION_BATCH], dtype=np.float32)}
            for start in starts
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def quantize_static_int8(
    model: ModelProto,
    calibration: np.ndarray,
    *,
    activations: str = "uint8",
    per_channel: bool = True,
    calibration_method: str = "minmax",
    float_nodes: Sequence[str] = (),
    align: int = 1,
) -> ModelProto:
    """Quantize weights to int8 and activations to 8 bits, with ranges from calibration windows.

    Parameters
    ----------
    model : ModelProto
        Float model with one input; not changed.
    calibration : ndarray of shape (n, leads, time)
        Windows of the training split.
    activations : {"uint8", "int8"}
        uint8 with a zero point (CPU), or symmetric int8 with float biases and joined ReLUs (TensorRT).
    per_channel : bool, default True
        One weight scale for each output channel.
    calibration_method : {"minmax", "entropy", "percentile"}
        How a range is made from what a tensor was seen to hold.
    float_nodes : sequence of str
        Nodes, or modules by name, that stay in float.
    align : int, default 1
        Channels between convolutions are padded to a multiple of this.

    Raises
    ------
    ValueError
        If an option is not one of those listed, or the calibration does not fit the model.
    """
    if activations not in _ACTIVATIONS:
        raise ValueError(f"activations={activations!r}, expected one of {sorted(_ACTIVATIONS)!r}")
    if calibration_method not in _METHODS:
        raise ValueError(f"calibration_method={calibration_method!r}, expected one of {sorted(_METHODS)!r}")
    if align < 1:
        raise ValueError(f"align_channels={align!r}, expected at least 1")
    _check_calibration(model, calibration)
    excluded = [*_find_nodes(model, float_nodes), *(n.name for n in model.graph.node if n.op_type in _FLOAT_TYPES)]
    symmetric = activations == "int8"
    prepared = ModelProto()
    prepared.CopyFrom(model)
    align_channels(prepared, align)
    with tempfile.TemporaryDirectory() as folder:
        source, quantized = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        _write_inferred(prepared, source)
        quantize_static(
            source,
            quantized,
            _Windows(model.graph.input[0].name, calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=_ACTIVATIONS[activations],
            weight_type=QuantType.QInt8,
            calibrate_method=_METHODS[calibration_method],
            nodes_to_exclude=excluded,
            # TensorRT takes no int32 bias behind a DequantizeLinear, and no zero point.
            extra_options={
                "ActivationSymmetric": symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": not symmetric,
            },
        )
        result = onnx.load(quantized)
    keep_output_float(result)
    free_softmax(result)
    if symmetric:
        join_relu(result)
    return result


def quantize_dynamic_int8(model: ModelProto, *, per_channel: bool = True) -> ModelProto:
    """Quantize the linear layers' weights to int8, their inputs at run time; convolutions stay in float."""
    with tempfile.TemporaryDirectory() as folder:
        source, quantized = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        _write_inferred(model, source)
        quantize_dynamic(
            source,
            quantized,
            op_types_to_quantize=["MatMul"],
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(quantized)


def _write_inferred(model: ModelProto, path: Path) -> None:
    """Write a model with inferred shapes, marked as ready for the quantizer."""
    raw = path.with_name("raw.onnx")
    onnx.save(model, raw)
    quant_pre_process(raw, path, skip_optimization=True, skip_symbolic_shape=True)


def _check_calibration(model: ModelProto, calibration: np.ndarray) -> None:
    expected = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:])
    if calibration.ndim != 1 + len(expected) or calibration.shape[1:] != expected or len(calibration) == 0:
        raise ValueError(f"calibration of shape {calibration.shape!r}, expected (n, *{expected!r}) with n >= 1")
    low, high = float(calibration.min()), float(calibration.max())
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"calibration runs from {low!r} to {high!r}: expected finite windows that are not constant")


def _find_nodes(model: ModelProto, wanted: Sequence[str]) -> list[str]:
    """Give the node names that are meant by node or module names."""
    weights = {weight.name for weight in model.graph.initializer}
    owners = {
        node.name: {node.name, *(name.rpartition(".")[0] for name in node.input if name in weights)}
        for node in model.graph.node
    }
    known = set().union(*owners.values()) - {""}
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise ValueError(f"float_nodes: no node or module {unknown!r}, expected some of {sorted(known)!r}")
    return [node for node, names in owners.items() if names & set(wanted)]
