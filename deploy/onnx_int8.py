"""Quantize an exported ONNX file to int8 with ONNX Runtime's quantizer."""

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

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
from onnxruntime.quantization.calibrate import TensorData, TensorsData, save_tensors_data
from onnxruntime.quantization.shape_inference import quant_pre_process

from deploy.onnx_bias import correct_biases
from deploy.onnx_graph import align_channels, find_owners, free_softmax, join_relu, keep_output_float

_ACTIVATIONS = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
    # Its ranges are written down instead of measured.
    "none": CalibrationMethod.MinMax,
}
# Windows, or frames where a window is a clip of them: what a net makes of a batch is in memory at once.
_CALIBRATION_BATCH = 32
_CLIP_NDIM = 5  # (clips, frames, channels, height, width)
# Norms that no convolution could take in have no integer kernel; a softmax takes three times as long in 8 bits.
_FLOAT_TYPES = ("BatchNormalization", "LayerNormalization", "Softmax")
# On the maps of all frames of a clip, an average pool in 8 bits takes a fifth of the net's time: its kernel is scalar.
_FLOAT_TYPES_OF_CLIPS = ("AveragePool",)


class _Windows(CalibrationDataReader):
    """Feeds calibration windows to the quantizer in batches; its positions count batches."""

    def __init__(self, name: str, windows: np.ndarray) -> None:
        self._name, self._windows = name, windows
        frames = windows.shape[1] if windows.ndim == _CLIP_NDIM else 1
        self._batch = max(1, _CALIBRATION_BATCH // frames)
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return -(-len(self._windows) // self._batch)

    def set_range(self, start_index: int, end_index: int) -> None:
        starts = (index * self._batch for index in range(start_index, end_index))
        self._batches: Iterator[dict[str, np.ndarray]] = (
            {self._name: np.ascontiguousarray(self._windows[start : start + self._batch], dtype=np.float32)}
            for start in starts
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def quantize_static_int8(
    model: ModelProto,
    calibration: np.ndarray | None,
    *,
    activations: str = "uint8",
    per_channel: bool = True,
    calibration_method: str = "minmax",
    percentile: float = 99.99,
    bias_correction: bool = False,
    float_nodes: Sequence[str] = (),
    int8_nodes: Sequence[str] = (),
    align: int = 1,
    ranges: Path | None = None,
) -> ModelProto:
    """Quantize weights to int8 and activations to 8 bits, with ranges from calibration windows.

    Parameters
    ----------
    model : ModelProto
        Float model with one input; not changed.
    calibration : ndarray of shape (n, leads, time), optional
        Windows of the training split; not read by the method "none".
    activations : {"uint8", "int8"}
        uint8 with a zero point (CPU), or symmetric int8 with float biases and joined ReLUs (TensorRT).
    per_channel : bool, default True
        One weight scale for each output channel.
    calibration_method : {"minmax", "entropy", "percentile", "none"}
        How a range is made from what a tensor was seen to hold. "none": every tensor gets scale 1 and zero point 0, as
        in a converter whose observers never saw a window.
    percentile : float, default 99.99
        Percent of the values that "percentile" keeps.
    bias_correction : bool, default False
        Shift biases by the mean error of their channel, see `deploy.onnx_bias.correct_biases`.
    float_nodes : sequence of str
        Nodes, or modules by name, that stay in float.
    int8_nodes : sequence of str
        Where given, nothing but these is quantized.
    align : int, default 1
        Channels between convolutions are padded to a multiple of this.
    ranges : Path, optional
        File of the ranges: read where it exists, written where it does not. The caller answers for it that model,
        windows, method, percentile, activations and align are those that it was written with.

    Raises
    ------
    ValueError
        If an option is not one of those listed, or the calibration does not fit the model.
    """
    if activations not in _ACTIVATIONS:
        raise ValueError(f"activations={activations!r}, expected one of {sorted(_ACTIVATIONS)!r}")
    if calibration_method not in _METHODS:
        raise ValueError(f"calibration_method={calibration_method!r}, expected one of {sorted(_METHODS)!r}")
    if not 50 < percentile <= 100:
        raise ValueError(f"percentile={percentile!r}, expected above 50 and at most 100")
    if align < 1:
        raise ValueError(f"align_channels={align!r}, expected at least 1")
    if calibration_method == "none":
        if bias_correction:
            raise ValueError("bias_correction needs calibration windows, but calibration_method='none' has none")
    elif calibration is None:
        raise ValueError("int8 needs calibration windows of the training split, got calibration=None")
    else:
        _check_calibration(model, calibration)
    symmetric = activations == "int8"
    of_clips = len(model.graph.input[0].type.tensor_type.shape.dim) == _CLIP_NDIM and not symmetric
    float_types = (*_FLOAT_TYPES, *(_FLOAT_TYPES_OF_CLIPS if of_clips else ()))
    excluded = [*_find_nodes(model, float_nodes), *(n.name for n in model.graph.node if n.op_type in float_types)]
    prepared = ModelProto()
    prepared.CopyFrom(model)
    align_channels(prepared, align)
    with tempfile.TemporaryDirectory() as folder:
        source, quantized = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        _write_inferred(prepared, source)
        if calibration_method == "none":
            ranges = Path(folder, "ranges.json")
            _write_unmeasured(onnx.load(source), ranges, symmetric)
        # It narrates its histograms.
        with redirect_stdout(io.StringIO()):
            quantize_static(
                source,
                quantized,
                None if calibration is None else _Windows(model.graph.input[0].name, calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=per_channel,
                activation_type=_ACTIVATIONS[activations],
                weight_type=QuantType.QInt8,
                calibrate_method=_METHODS[calibration_method],
                nodes_to_quantize=_find_nodes(model, int8_nodes, "int8_nodes"),
                nodes_to_exclude=excluded,
                extra_options=_options(prepared, calibration_method, percentile, symmetric),
                calibration_cache_path=ranges,
            )
        result = onnx.load(quantized)
    keep_output_float(result)
    free_softmax(result)
    if symmetric:
        join_relu(result)
    if bias_correction and calibration is not None:
        correct_biases(prepared, result, calibration)
    return result


def _options(model: ModelProto, calibration_method: str, percentile: float, symmetric: bool) -> dict[str, Any]:
    # The quantizer would give a constant on the left of a product a scale for each of the terms that it sums.
    constants = {tensor.name for tensor in model.graph.initializer}
    lefts = {node.input[0] for node in model.graph.node if node.op_type == "MatMul"} & constants
    # TensorRT takes no int32 bias behind a DequantizeLinear, and no zero point.
    options: dict[str, Any] = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": not symmetric,
        "TensorQuantOverrides": {name: [{"symmetric": True}] for name in sorted(lefts)},
    }
    if calibration_method in ("entropy", "percentile"):
        # One batch at a time: these keep whole activations until they are counted.
        options["CalibStridedMinMax"] = 1
    if calibration_method == "percentile":
        # Half of a symmetric range would be spent on what a ReLU never gives.
        options |= {"CalibPercentile": percentile, "CalibTensorRangeSymmetric": False}
    return options


def _write_unmeasured(model: ModelProto, path: Path, symmetric: bool) -> None:
    """Write ranges that give every tensor scale 1 and zero point 0."""
    graph = model.graph
    names = {name for node in graph.node for name in (*node.input, *node.output) if name}
    names -= {weight.name for weight in graph.initializer}
    lowest, highest = (-127, 127) if symmetric else (0, 255)
    ends = {"lowest": np.float32(lowest), "highest": np.float32(highest)}
    save_tensors_data(TensorsData(_METHODS["none"], {name: TensorData(**ends) for name in sorted(names)}), path)


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


def _find_nodes(model: ModelProto, wanted: Sequence[str], option: str = "float_nodes") -> list[str]:
    """Give the node names that are meant by node or module names."""
    owners: Mapping[str, set[str]] = find_owners(model)
    known = set().union({}, *owners.values(), owners)
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise ValueError(f"{option}: no node or module {unknown!r}, expected some of {sorted(known)!r}")
    return [node for node, names in owners.items() if (names | {node}) & set(wanted)]
