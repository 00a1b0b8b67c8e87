"""Count operators and multiply-accumulates of an ONNX file."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, numpy_helper

from deploy.artifact import ArtifactError, OperatorCount, WeightCount

Shapes = dict[str, tuple[int, ...]]

_INT8_TYPES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
# What stands between stored weights and the node that multiplies by them.
_FORMS = {"Cast", "DequantizeLinear", "Reshape", "Transpose"}
_UNCOUNTED = {"LSTM", "GRU", "RNN", "Einsum", "Attention", "DeformConv", "QGemm", "QAttention"}


def read_model(path: Path) -> ModelProto:
    """Parse and check an ONNX file.

    Raises
    ------
    ArtifactError
        If it is missing or not a whole ONNX model.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such model file; export it first") from error
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ArtifactError(f"{path}: not a whole ONNX model ({error}); export it again") from error
    return model


def count_macs(path: Path) -> OperatorCount:
    """Count the operators and multiply-accumulates of an ONNX file at batch 1.

    A node counts as int8 where it is an integer operator, or where both its data and its weights come out of
    a DequantizeLinear on 8-bit values: the pattern that runtimes turn into integer kernels.

    Raises
    ------
    ArtifactError
        If the file is damaged, a shape cannot be inferred, or a node multiplies in a way not counted here.
    """
    model = read_model(path)
    uncounted = sorted({node.op_type for node in model.graph.node} & _UNCOUNTED)
    if uncounted:
        raise ArtifactError(f"{path.name}: MACs of {uncounted!r} are not counted; add them to deploy.onnx_macs")
    shapes, types = _infer(model, path)
    producers = {output: node for node in model.graph.node for output in node.output}
    node_macs: dict[str, int] = {}
    int8_nodes: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if node.op_type not in _MACS:
            continue
        name = node.name or f"{node.op_type}_{index}"
        try:
            node_macs[name] = _MACS[node.op_type](node, shapes)
        except KeyError as error:
            raise ArtifactError(
                f"{path.name}: no shape of {error.args[0]!r} at node {name!r}; export it again"
            ) from error
        dequantized = (_is_dequantized(producers.get(tensor), types) for tensor in node.input[:2])
        if "Integer" in node.op_type or "QLinear" in node.op_type or all(dequantized):
            int8_nodes.add(name)
    operators = dict(Counter(node.op_type for node in model.graph.node))
    layers = _find_layers(model, producers)
    return OperatorCount(node_macs, frozenset(int8_nodes), operators, _count_weights(model, producers), layers)


def _count_weights(model: ModelProto, producers: Mapping[str, NodeProto]) -> WeightCount:
    """Count the stored values behind the nodes with MACs, each tensor once; biases are not among them."""
    stored = {weight.name: weight for weight in model.graph.initializer}
    found: dict[str, np.ndarray] = {}
    for node in model.graph.node:
        if node.op_type in _MACS:
            for tensor in node.input:
                name = _find_stored(tensor, producers)
                if name in stored and len(stored[name].dims) > 1:
                    found[name] = numpy_helper.to_array(stored[name])
    nonzero = [np.count_nonzero(values) for values in found.values()]
    return WeightCount(
        values=sum(values.size for values in found.values()),
        nonzero=int(sum(nonzero)),
        size_bytes=sum(values.nbytes for values in found.values()),
        nonzero_bytes=int(sum(count * values.itemsize for count, values in zip(nonzero, found.values(), strict=True))),
    )


def _find_layers(model: ModelProto, producers: Mapping[str, NodeProto]) -> dict[str, str]:
    """Give for the nodes with MACs the module that their weights are named after, in float or int8."""
    stored = {weight.name for weight in model.graph.initializer}
    layers: dict[str, str] = {}
    for index, node in enumerate(model.graph.node):
        if node.op_type in _MACS:
            names = (_find_stored(tensor, producers) for tensor in node.input)
            modules = [name.rpartition(".")[0] for name in names if name in stored and "." in name]
            if modules:
                layers[node.name or f"{node.op_type}_{index}"] = modules[0]
    return layers


def _find_stored(tensor: str, producers: Mapping[str, NodeProto]) -> str:
    """Follow a tensor back through what only changes its form."""
    while tensor in producers and producers[tensor].op_type in _FORMS:
        tensor = producers[tensor].input[0]
    return tensor


def _infer(model: ModelProto, path: Path) -> tuple[Shapes, dict[str, int]]:
    """Give shape and element type of every tensor at batch 1."""
    graph = model.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].dim_value = 1
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise ArtifactError(f"{path.name}: shapes do not fit together ({error}); export it again") from error
    shapes: Shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    types: dict[str, int] = {weight.name: weight.data_type for weight in graph.initializer}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        tensor = value.type.tensor_type
        types[value.name] = tensor.elem_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return shapes, types


def _is_dequantized(node: NodeProto | None, types: dict[str, int]) -> bool:
    return node is not None and node.op_type == "DequantizeLinear" and types.get(node.input[0]) in _INT8_TYPES


def _conv(weight: int) -> Callable[[NodeProto, Shapes], int]:
    # Weights are (out, in / group, kernel...): every output value takes one product of all but the first.
    return lambda node, shapes: math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[weight]][1:])


def _conv_transpose(node: NodeProto, shapes: Shapes) -> int:
    # Weights are (in, out / group, kernel...): every input value is spread over all but the first.
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _matmul(node: NodeProto, shapes: Shapes) -> int:
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: NodeProto, shapes: Shapes) -> int:
    transposed = any(item.name == "transA" and item.i for item in node.attribute)
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]


_MACS: dict[str, Callable[[NodeProto, Shapes], int]] = {
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
}
