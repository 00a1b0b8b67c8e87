"""Empirical bias correction of a quantized ONNX graph."""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from deploy.run_on_device import load_onnx

_BATCH = 32
_TYPES = ("Conv", "Gemm")


def correct_biases(model: ModelProto, quantized: ModelProto, windows: np.ndarray) -> dict[str, float]:
    """Shift every bias by the mean error of its channel, in place; the layers before come first.

    Rounding weights moves the mean of a channel, which no later layer takes back. The mean output of each convolution
    and dense layer is measured on `windows` in both graphs, and the difference is added to the bias in the number
    format that it has there. After Nagel et al. 2019, section 4.2 (doi 10.1109/ICCV.2019.00141). Layers without a
    bias are left as they are.

    Parameters
    ----------
    model : ModelProto
        The float graph.
    quantized : ModelProto
        Made from it; its nodes keep their names. Changed.
    windows : ndarray of shape (n, leads, time)
        Of the training split.

    Returns
    -------
    dict of str to float
        Largest shift of each corrected node, in units of its output.
    """
    layers = [node for node in quantized.graph.node if _find_bias(quantized, node) is not None]
    named = {node.name: node for node in model.graph.node}
    means = _channel_means(model, [named[node.name].output[0] for node in layers], windows)
    shifts = {}
    for node, mean in zip(layers, means, strict=True):
        (own,) = _channel_means(quantized, [node.output[0]], windows)
        shift = mean - own
        _add_to_bias(quantized, node, shift)
        shifts[node.name] = float(np.abs(shift).max())
    return shifts


def _channel_means(model: ModelProto, tensors: Sequence[str], windows: np.ndarray) -> list[np.ndarray]:
    """Mean of tensors (batch, channels, ...) over batch and positions, by channel."""
    probed = ModelProto()
    probed.CopyFrom(model)
    known = {value.name for value in probed.graph.output}
    probed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = load_onnx(onnxruntime, probed.SerializeToString(), options)
    sums: list[np.ndarray] = [np.zeros(0)] * len(tensors)
    for batch in _batches(windows):
        outputs = session.run(list(tensors), {session.get_inputs()[0].name: batch})
        for index, output in enumerate(outputs):
            total = output.mean(axis=tuple(range(2, output.ndim)), dtype=np.float64).sum(axis=0)
            sums[index] = total if sums[index].size == 0 else sums[index] + total
    return [total / len(windows) for total in sums]


def _batches(windows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(windows), _BATCH):
        yield np.ascontiguousarray(windows[start : start + _BATCH], dtype=np.float32)


def _find_bias(model: ModelProto, node: NodeProto) -> tuple[TensorProto, np.ndarray] | None:
    """Give the stored bias of a layer with the size of its steps; None where it has none."""
    if node.op_type not in _TYPES or len(node.input) < 3 or not node.input[2]:
        return None
    weights = {weight.name: weight for weight in model.graph.initializer}
    if node.input[2] in weights:
        return weights[node.input[2]], np.ones(1)
    producer = next(item for item in model.graph.node if node.input[2] in item.output)
    return weights[producer.input[0]], numpy_helper.to_array(weights[producer.input[1]]).astype(np.float64)


def _add_to_bias(model: ModelProto, node: NodeProto, shift: np.ndarray) -> None:
    found = _find_bias(model, node)
    if found is None:
        raise ValueError(f"{node.name} has no bias")
    stored, step = found
    values = numpy_helper.to_array(stored)
    moved = values + shift.reshape(values.shape) / step
    if np.issubdtype(values.dtype, np.integer):
        limits = np.iinfo(values.dtype)
        moved = np.clip(np.rint(moved), limits.min, limits.max)
    stored.CopyFrom(numpy_helper.from_array(moved.astype(values.dtype), stored.name))
