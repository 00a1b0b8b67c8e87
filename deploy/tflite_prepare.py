"""Bring a net into the form that LiteRT's converter turns into few operators, and convert it."""

import copy
import logging
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

aten = torch.ops.aten
_SQUEEZES = (aten.squeeze.dim, aten.squeeze.dims)


class ChannelsLast(nn.Module):
    """A net behind an input of shape (1, 1, time, leads), as the runtime's kernels want it.

    Parameters
    ----------
    net : nn.Module
        Maps (batch, leads, time) to logits.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, window: Tensor) -> Tensor:
        """Shapes: window (1, 1, time, leads) -> logits (1, classes)."""
        return self.net(window.permute(0, 3, 1, 2).squeeze(2))


def convert_windows(net: nn.Module, leads: int, time: int) -> bytes:
    """Convert a net to the content of a TensorFlow Lite file in float32, for one window of fixed shape.

    Batch norms are folded by the converter. A ReLU behind a max pool moves before it (the two commute), so that it
    melts into the convolution: an 8-bit range is not spent on negative values then, and the Edge TPU takes the pool.

    Parameters
    ----------
    net : nn.Module
        Copied; in eval mode and float32.
    leads, time : int
        Shape of a window.

    Raises
    ------
    ValueError
        If the net holds pruning masks, or an operator that TensorFlow Lite lacks; the message names it and its layer.
    """
    return _convert(ChannelsLast(_copy_plain(net)), torch.zeros(1, 1, time, leads))


def convert_clips(net: nn.Module, form: Callable[[nn.Module], nn.Module] | None, n_frames: int) -> bytes:
    """Convert a net for clips to the content of a TensorFlow Lite file in float32, in the form that one call runs.

    Parameters
    ----------
    net : nn.Module
        Copied; in eval mode and float32.
    form : callable
        See `deploy.tflite.export_tflite`.
    n_frames : int
        Frames of a clip.

    Raises
    ------
    ValueError
        If there is no form, or a clip is not a whole number of its calls; else as `convert_windows`.
    """
    if form is None:
        raise ValueError("a net for clips needs clip_form, which says what one call runs: see conf/deploy/tflite.yaml")
    call: Any = form(_copy_plain(net))
    if n_frames % call.n_frames:
        raise ValueError(
            f"clips of {n_frames} frames are not a multiple of the {call.n_frames} frames of a call, the segment:"
            " change datamodule.n_frames or model.module.net.segment"
        )
    return _convert(call, torch.zeros(call.input_shape))


def _copy_plain(net: nn.Module) -> nn.Module:
    try:
        twin = copy.deepcopy(net).to("cpu", torch.float32).eval()
    except RuntimeError as error:
        # torch refuses to copy weights that are computed from others.
        raise ValueError("net holds masked or normed weights; make them permanent before export") from error
    return twin.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def prepare_program(program: ExportedProgram) -> GraphModule:
    """Rewrite an exported net for the converter; its outputs stay the same."""
    module = program.module(check_guards=False)
    graph = module.graph
    _drop_squeezes(graph)
    _simplify_norms(module)
    _move_relu_before_pool(graph)
    _flatten_channels_last(module)
    _name_layers(graph)
    graph.eliminate_dead_code()
    graph.lint()
    return GraphModule(module, graph).eval()


def _convert(net: nn.Module, window: Tensor) -> bytes:
    import litert_torch

    with _quiet_converter(), torch.no_grad():
        module = prepare_program(torch.export.export(net.eval(), (window,)))
        try:
            return bytes(litert_torch.convert(module, (window,)).model_content())
        except Exception as error:
            # The converter has no error of its own: it raises what its parts raise.
            lacking = _find_lacking(module, str(error))
            if lacking is None:
                raise
            raise ValueError(
                f"TensorFlow Lite lacks the operator {lacking[0]!r} of layer {lacking[1]!r}; write the layer with"
                " others, or export to another target"
            ) from error


def _find_lacking(module: GraphModule, message: str) -> tuple[str, str] | None:
    """Operator and layer that a message of the converter is about."""
    for node in module.graph.nodes:
        name = str(node.target).removesuffix(".default")
        if node.op == "call_function" and (name in message or f"aten.{node.name.rstrip('_0123456789')}" in message):
            return str(node.target), str(node.meta.get("layer") or "net")
    return None


def _drop_squeezes(graph: Graph) -> None:
    """Take out what squeezes a dimension for the next node to bring it back."""
    for node in graph.nodes:
        if node.target is aten.unsqueeze.default and node.args[0].target in _SQUEEZES:
            source = node.args[0].args[0]
            if source.meta["val"].shape == node.meta["val"].shape:
                node.replace_all_uses_with(source)


def _move_relu_before_pool(graph: Graph) -> None:
    for relu in graph.nodes:
        if relu.target not in (aten.relu.default, aten.relu_.default):
            continue
        pool = relu.args[0]
        if pool.target is aten.max_pool2d.default and len(pool.users) == 1:
            source = pool.args[0]
            relu.replace_all_uses_with(pool)
            relu.replace_input_with(pool, source)
            pool.replace_input_with(source, relu)
            pool.prepend(relu)
            relu.meta["val"] = source.meta["val"]


def _simplify_norms(module: GraphModule) -> None:
    """Write a batch norm that no convolution can take in as one factor and one summand, or give it to a dense layer."""
    graph = module.graph
    for index, norm in enumerate(list(graph.nodes)):
        if norm.target is not aten.batch_norm.default or norm.args[0].target is aten.conv2d.default:
            continue
        scale, shift = _read_norm(module, norm)
        reader = next(iter(norm.users))
        source = norm.args[0]
        if reader.target is aten.linear.default and len(norm.users) == 1 and len(reader.args) == 3:
            weight, bias = (module.get_parameter(node.target) for node in reader.args[1:3])
            bias.data = bias.data + weight.data @ shift
            weight.data = weight.data * scale
            norm.replace_all_uses_with(source)
            continue
        shape = [-1] + [1] * (source.meta["val"].ndim - 2)
        names = [f"norm_{index}_scale", f"norm_{index}_shift"]
        with graph.inserting_before(norm):
            constants = []
            for name, values in zip(names, (scale, shift), strict=True):
                module.register_buffer(name, values.reshape(shape))
                constants.append(graph.get_attr(name))
            scaled = graph.call_function(aten.mul.Tensor, (source, constants[0]))
            shifted = graph.call_function(aten.add.Tensor, (scaled, constants[1]))
        scaled.meta = shifted.meta = dict(norm.meta)
        norm.replace_all_uses_with(shifted)


def _read_norm(module: GraphModule, norm: Node) -> tuple[Tensor, Tensor]:
    """Factor and summand of a batch norm in eval mode, one for each channel."""
    arguments: Sequence[Any] = norm.args
    source, weight, bias, mean, variance = arguments[:5]
    width = source.meta["val"].shape[1]
    weights, biases, means, variances = (
        torch.full((width,), default) if node is None else _find_constant(module, node)
        for node, default in ((weight, 1.0), (bias, 0.0), (mean, 0.0), (variance, 1.0))
    )
    scale = weights / (variances + arguments[7]).sqrt()
    return scale, biases - means * scale


def _find_constant(module: GraphModule, node: Node) -> Tensor:
    owner, _, name = str(node.target).rpartition(".")
    return getattr(module.get_submodule(owner), name).detach()


def _flatten_channels_last(module: GraphModule) -> None:
    """Flatten maps as they lie in memory, and turn the weights of the dense layer behind instead."""
    graph = module.graph
    flattened: dict[str, list[Node]] = defaultdict(list)
    for flatten in graph.nodes:
        if flatten.target is not aten.flatten.using_ints or tuple(flatten.args[1:]) != (1,):
            continue
        shape = flatten.args[0].meta["val"].shape
        linear = next(iter(flatten.users))
        if len(shape) != 4 or shape[1] == 1 or math.prod(shape[2:]) == 1 or len(flatten.users) > 1:
            continue
        if linear.target is aten.linear.default and linear.args[1].op == "get_attr":
            flattened[linear.args[1].target].append(flatten)
    for name, nodes in flattened.items():
        # Frames that are handled one by one share their weights: all of them turn, or none.
        if len(nodes) < _count_readers(graph, name):
            continue
        weight = module.get_parameter(name)
        (shape,) = {flatten.args[0].meta["val"].shape[1:] for flatten in nodes}  # type: ignore[union-attr]
        turned = weight.detach().unflatten(1, shape).permute(0, 2, 3, 1).flatten(1)
        weight.data = turned.contiguous()
        for flatten in nodes:
            source: Any = flatten.args[0]
            with graph.inserting_before(flatten):
                permuted = graph.call_function(aten.permute.default, (source, [0, 2, 3, 1]))
            permuted.meta = {**flatten.meta, "val": source.meta["val"].permute(0, 2, 3, 1)}
            flatten.replace_input_with(source, permuted)


def _count_readers(graph: Graph, name: str) -> int:
    return sum(len(node.users) for node in graph.nodes if node.op == "get_attr" and node.target == name)


def _name_layers(graph: Graph) -> None:
    """Let tensors be called like the modules of the net: the converter takes names from here."""
    for node in graph.nodes:
        layer = _find_layer(node)
        if layer:
            node.meta["layer"] = layer
            node.meta["nn_module_stack"] = {layer: ("", layer)}


def _find_layer(node: Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return path.removeprefix("net").removeprefix(".") or ("net" if stack else "")


@contextmanager
def _quiet_converter() -> Iterator[None]:
    """Silence the converter's progress on standard output, and remarks that concern neither net nor file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = os.environ.get("LITERT_TORCH_SHOW_PROGRESS")
        os.environ["LITERT_TORCH_SHOW_PROGRESS"] = "n"
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
            if known is None:
                del os.environ["LITERT_TORCH_SHOW_PROGRESS"]
            else:
                os.environ["LITERT_TORCH_SHOW_PROGRESS"] = known
