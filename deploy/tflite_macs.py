"""Count operators and multiply-accumulates of a TensorFlow Lite file."""

import math
from collections import Counter
from pathlib import Path

import numpy as np

from deploy.artifact import ArtifactError, OperatorCount, WeightCount
from deploy.tflite_file import Graph, Operator, read_graph
from deploy.tflite_layout import count_calls

_INT8 = {"INT8", "UINT8"}
_UNCOUNTED = {
    *("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM"),
    *("RNN", "UNIDIRECTIONAL_SEQUENCE_RNN", "SVDF", "CONV_3D", "CONV_3D_TRANSPOSE"),
}


def count_macs(path: Path) -> OperatorCount:
    """Count the operators and multiply-accumulates of a TensorFlow Lite file: of a clip, those of all of its calls.

    An operator counts as int8 where its data and its weights are of 8 bits: dynamic-range operators, which take float
    data, do not, although the runtime multiplies integers there too.

    Raises
    ------
    ArtifactError
        If the file is damaged, or an operator multiplies in a way not counted here.
    """
    graph = read_graph(path)
    uncounted = sorted(
        {operator.kind for operator in graph.operators if operator.custom or operator.kind in _UNCOUNTED}
    )
    if uncounted:
        raise ArtifactError(f"{path.name}: MACs of {uncounted!r} are not counted; add them to deploy.tflite_macs")
    multiplying = {op.name: op for op in graph.operators if op.kind in WEIGHTS}
    calls = count_calls(graph)
    return OperatorCount(
        {name: calls * operator_macs(graph, operator) for name, operator in multiplying.items()},
        frozenset(name for name, operator in multiplying.items() if _is_int8(graph, operator)),
        dict(Counter(operator.kind for operator in graph.operators)),
        _count_weights(graph),
    )


def find_float(graph: Graph) -> list[Operator]:
    """Operators that compute in float; those that only take values to float or back are not among them."""
    return [
        operator
        for operator in graph.operators
        if operator.kind not in ("QUANTIZE", "DEQUANTIZE")
        and any(graph.tensors[at].dtype.startswith("FLOAT") for at in (*operator.inputs, *operator.outputs))
    ]


def operator_macs(graph: Graph, operator: Operator) -> int:
    """Multiply-accumulates of an operator for one call; 0 for what does not multiply weights or matrices."""
    if operator.kind not in WEIGHTS:
        return 0
    data, weights = (graph.tensors[position].shape for position in operator.inputs[:2])
    produced = math.prod(graph.tensors[operator.outputs[0]].shape)
    match operator.kind:
        case "CONV_2D":  # weights (out, height, width, in / groups)
            return produced * math.prod(weights[1:])
        case "DEPTHWISE_CONV_2D":  # weights (1, height, width, out)
            return produced * math.prod(weights[1:3])
        case "TRANSPOSE_CONV":  # inputs: output shape, weights (out, height, width, in), data
            source = graph.tensors[operator.inputs[2]].shape
            return math.prod(source) * math.prod(weights[:3])
        case "FULLY_CONNECTED":  # weights (out, in)
            return produced * weights[-1]
        case _:  # BATCH_MATMUL
            return produced * data[-2 if operator.options.adjX else -1]


WEIGHTS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "TRANSPOSE_CONV": 1, "FULLY_CONNECTED": 1, "BATCH_MATMUL": 1}
"""Kinds that have MACs, and which of their inputs the weights are."""


def _is_int8(graph: Graph, operator: Operator) -> bool:
    data = 2 if operator.kind == "TRANSPOSE_CONV" else 0
    weights = WEIGHTS[operator.kind]
    return all(graph.tensors[operator.inputs[position]].dtype in _INT8 for position in (data, weights))


def _count_weights(graph: Graph) -> WeightCount:
    """Count the stored values that are multiplied by, each tensor once; biases are not among them."""
    producers = {output: operator for operator in graph.operators for output in operator.outputs}
    found: dict[int, np.ndarray] = {}
    for operator in graph.operators:
        if operator.kind in WEIGHTS:
            position = operator.inputs[WEIGHTS[operator.kind]]
            # Weights in float16 stand behind a DEQUANTIZE.
            while not graph.tensors[position].data and position in producers:
                position = producers[position].inputs[0]
            if graph.tensors[position].data:
                found[position] = graph.tensors[position].values
    counts = [(values.size, int(np.count_nonzero(values)), values.itemsize) for values in found.values()]
    return WeightCount(
        values=sum(size for size, _, _ in counts),
        nonzero=sum(nonzero for _, nonzero, _ in counts),
        size_bytes=sum(size * width for size, _, width in counts),
        nonzero_bytes=sum(nonzero * width for _, nonzero, width in counts),
    )
