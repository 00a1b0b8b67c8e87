"""Rewrite ONNX graphs into the form that quantizes and fuses well."""

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

# Channel by channel without mixing, and zero stays zero: padded channels pass through.
_CHANNELWISE = ("Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity")


def prepare_graph(model: ModelProto) -> None:
    """Bring an exported graph into the form that runtimes fuse, in place; its outputs stay the same.

    Exporter notes (they hold source paths) are dropped. A ReLU behind a max pool moves before it (the two
    commute), so that it melts into the convolution: otherwise an unsigned 8-bit range is spent on negative
    values, and ONNX Runtime leaves the pools in float. A mean over all positions becomes a global average
    pool.
    """
    _strip_notes(model)
    _move_relu_before_pool(model)
    sort_nodes(model)
    _use_global_pool(model)
    drop_unused_weights(model)


def align_channels(model: ModelProto, multiple: int) -> None:
    """Pad the channels between two convolutions with zeros to a multiple, in place.

    The outputs stay the same. Done only where everything between the two works channel by channel.
    """
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer if len(_readers(graph, weight.name)) == 1}
    for conv in [node for node in graph.node if _is_plain_conv(node, weights)]:
        width = weights[conv.input[1]].dims[0]
        added = -width % multiple
        following = _next_conv(graph, conv.output[0])
        if added == 0 or following is None or not _is_plain_conv(following, weights):
            continue
        _pad_weight(weights[conv.input[1]], axis=0, added=added)
        if len(conv.input) > 2:
            _pad_weight(weights[conv.input[2]], axis=0, added=added)
        _pad_weight(weights[following.input[1]], axis=1, added=added)
    # Shapes that the exporter wrote down no longer hold.
    del graph.value_info[:]


def keep_output_float(model: ModelProto) -> None:
    """Take the quantize-dequantize pair off the outputs, in place: 256 levels of logit would tie ranks."""
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    for value in graph.output:
        pair = _find_pair(value.name, producers)
        if pair is None or len(_readers(graph, pair[0].output[0])) > 1:
            continue
        source = producers[pair[0].input[0]]
        source.output[list(source.output).index(pair[0].input[0])] = value.name
        for node in pair:
            graph.node.remove(node)
    drop_unused_weights(model)


def join_relu(model: ModelProto) -> None:
    """Take the quantize-dequantize pair out between a convolution and its ReLU, in place.

    TensorRT joins the two into one integer kernel only if nothing stands between them.
    """
    _drop_pairs_before(model, "Relu", "Conv")


def free_softmax(model: ModelProto) -> None:
    """Take the quantize-dequantize pair out between a matrix product and its softmax, in place.

    The product still multiplies integers. Behind the pair, ONNX Runtime 1.31 takes its 8-bit softmax, which is slower
    than the float one and rounds small weights of many positions to zero.
    """
    _drop_pairs_before(model, "Softmax", "MatMul")


def _drop_pairs_before(model: ModelProto, reader: str, source: str) -> None:
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    for node in [node for node in graph.node if node.op_type == reader]:
        pair = _find_pair(node.input[0], producers)
        if pair is None or len(_readers(graph, pair[0].output[0])) > 1:
            continue
        if len(_readers(graph, pair[1].output[0])) > 1 or producers[pair[0].input[0]].op_type != source:
            continue
        node.input[0] = pair[0].input[0]
        for item in pair:
            graph.node.remove(item)
    drop_unused_weights(model)


def find_owners(model: ModelProto) -> dict[str, set[str]]:
    """Give for every node name the modules whose weights it reads, such as ``features.0``."""
    weights = {weight.name for weight in model.graph.initializer}
    return {
        node.name: {name.rpartition(".")[0] for name in node.input if name in weights} - {""}
        for node in model.graph.node
    }


def drop_unused_weights(model: ModelProto) -> None:
    """Remove the initializers that no node reads, in place."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for weight in [weight for weight in graph.initializer if weight.name not in used]:
        graph.initializer.remove(weight)


def _strip_notes(model: ModelProto) -> None:
    graph = model.graph
    for item in (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    ):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def _readers(graph: onnx.GraphProto, tensor: str) -> list[NodeProto]:
    return [node for node in graph.node if tensor in node.input]


def _move_relu_before_pool(model: ModelProto) -> None:
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    for relu in [node for node in graph.node if node.op_type == "Relu"]:
        pool = producers.get(relu.input[0])
        if pool is None or pool.op_type != "MaxPool" or len(pool.output) > 1:
            continue
        if len(_readers(graph, pool.output[0])) > 1 or pool.output[0] in {value.name for value in graph.output}:
            continue
        source, between, result = pool.input[0], f"{relu.output[0]}_before_pool", relu.output[0]
        relu.input[0], relu.output[0] = source, between
        pool.input[0], pool.output[0] = between, result
        producers[result] = pool
    # Shapes noted for the swapped tensors are wrong now; whoever needs shapes infers them.
    del graph.value_info[:]


def _use_global_pool(model: ModelProto) -> None:
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in inferred.value_info}
    for node in graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in weights:
            continue
        rank = ranks.get(node.input[0], 0)
        axes = {int(axis) % rank for axis in numpy_helper.to_array(weights[node.input[1]])} if rank else set()
        keeps = all(item.i == 1 for item in node.attribute if item.name == "keepdims")
        if keeps and rank > 2 and axes == set(range(2, rank)):
            node.op_type = "GlobalAveragePool"
            del node.input[1:]
            del node.attribute[:]


def sort_nodes(model: ModelProto) -> None:
    """Order the nodes so that each comes after those that it reads, in place."""
    graph = model.graph
    waiting = list(graph.node)
    known = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    ordered: list[NodeProto] = []
    while waiting:
        ready = next(node for node in waiting if known.issuperset(node.input))
        waiting.remove(ready)
        ordered.append(ready)
        known.update(ready.output)
    del graph.node[:]
    graph.node.extend(ordered)


def _find_pair(tensor: str, producers: dict[str, NodeProto]) -> tuple[NodeProto, NodeProto] | None:
    """Give the quantize-dequantize pair that makes a tensor, if one does."""
    dequantize = producers.get(tensor)
    quantize = producers.get(dequantize.input[0]) if dequantize is not None else None
    if dequantize is None or quantize is None or quantize.op_type != "QuantizeLinear":
        return None
    # A pair on the input or on a weight has no operator before it.
    return (quantize, dequantize) if quantize.input[0] in producers else None


def _is_plain_conv(node: NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    grouped = any(item.name == "group" and item.i != 1 for item in node.attribute)
    return node.op_type == "Conv" and not grouped and all(name in weights for name in node.input[1:])


def _next_conv(graph: onnx.GraphProto, tensor: str) -> NodeProto | None:
    """Follow channelwise nodes to the only convolution behind a tensor; None where the way forks or mixes."""
    while True:
        readers = _readers(graph, tensor)
        if len(readers) != 1 or tensor in {value.name for value in graph.output}:
            return None
        if readers[0].op_type == "Conv":
            return readers[0]
        if readers[0].op_type not in _CHANNELWISE or len(readers[0].output) > 1:
            return None
        tensor = readers[0].output[0]


def _pad_weight(weight: onnx.TensorProto, *, axis: int, added: int) -> None:
    values = numpy_helper.to_array(weight)
    pad = [(0, added if index == axis else 0) for index in range(values.ndim)]
    weight.CopyFrom(numpy_helper.from_array(np.pad(values, pad), weight.name))
