"""Torch-Pruning's dependency graph of a net: which channels of which layers can only go together."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from lightning_modules.nets.attention1d import TemporalAttentionPool
from lightning_modules.nets.cnn_vit import SelfAttention
from lightning_modules.nets.tscan import GatedStage, TsCan

# What stays as it is, with a simpler map of the same shape for the trace. Heads share their channels in order: one
# channel less would move all that follow to another head.
ATTENTION: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    TemporalAttentionPool: lambda features: features.mean((2, 3)),
    SelfAttention: lambda tokens: tokens,
}


def import_torch_pruning() -> Any:
    """Import Torch-Pruning, which only structured pruning needs.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise ImportError("structured pruning needs Torch-Pruning: pip install torch-pruning==1.6.1") from error
    return torch_pruning


def build_graph(net: nn.Module, example: Tensor) -> Any:
    """Trace a net into Torch-Pruning's dependency graph; an attention is traced as a simpler map.

    Parameters
    ----------
    net : nn.Module
        In eval mode.
    example : Tensor of shape (batch, leads, time), or of a clip
        A window.
    """
    torch_pruning = import_torch_pruning()
    for value in net.parameters():
        value.requires_grad_(True)
    with ExitStack() as stack:
        # Parameters of no layer, as an attention's queries: they lie in what stays.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Unwrapped parameters detected")
        for module in net.modules():
            if type(module) in ATTENTION:
                stack.enter_context(_standing_in(module))
        run = stack.enter_context(_untied(net)) if isinstance(net, TsCan) else None
        return torch_pruning.DependencyGraph().build_dependency(net, example, forward_fn=run)


def shift_readers(net: nn.Module) -> set[nn.Module]:
    """Layers that read a temporal shift: what a channel of theirs is depends on the third in which it lies."""
    stages: Sequence[GatedStage] = net.stages if isinstance(net, TsCan) else ()
    return {layer for stage in stages for layer in (stage.motion_same, stage.motion_valid)}


@contextmanager
def _untied(net: TsCan) -> Iterator[Callable[[nn.Module, Tensor], list[Tensor]]]:
    """Run a TS-CAN without what moves or scales whole maps, and leaves each channel in its place.

    Torch-Pruning would tie a mask of one channel to all that it scales, and loses channels in the five dimensions of a
    shift. The masks become outputs of their own, so that the trace shows whom they read.
    """
    masks: list[Tensor] = []

    def watch(stage: GatedStage) -> Callable[[Tensor, str], tuple[Tensor, float]]:
        look = stage.look

        def look_aside(appearance: Tensor, norm: str) -> tuple[Tensor, float]:
            features, mask = look(appearance, norm)
            masks.append(mask)
            return features, 1.0

        return look_aside

    for stage in net.stages:
        stage.look = watch(stage)  # type: ignore[method-assign, assignment]
    net._shift = lambda motion: motion  # type: ignore[method-assign]
    try:
        yield lambda net, clips: [net(clips), *masks]
    finally:
        del net._shift
        for stage in net.stages:
            del stage.look


@contextmanager
def _standing_in(attention: nn.Module) -> Iterator[None]:
    """Let an attention answer with a simpler map that its first layer reads.

    The trace then shows who feeds it; through its matrix products Torch-Pruning would count for minutes.
    """
    first = next(layer for layer in attention.modules() if isinstance(layer, nn.Conv2d))
    simpler = ATTENTION[type(attention)]
    attention.forward = lambda features: simpler(features) + first(features).mean()
    try:
        yield
    finally:
        del attention.forward


def group_of(graph: Any, layer: nn.Module, channels: Sequence[int]) -> Any:
    """Give all that must go with some output channels of a layer: pairs of a dependency and its indices."""
    _map_indices(graph)
    return graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, list(channels))


def _map_indices(graph: Any) -> None:
    """Tell the graph where a channel comes to lie in a map that is laid flat, and in a concatenation of such.

    Torch-Pruning 1.6 guesses both from the widths of the layers around: it would take means beside deviations for a
    map laid flat, and tie together branches that are.
    """
    from torch_pruning import ops
    from torch_pruning.dependency import index_mapping, shape_infer

    graph._2d_4d = False  # no guess for a map laid flat
    for node in graph.module2node.values():
        sizes = getattr(node.grad_fn, "_saved_self_sym_sizes", ())
        if node.type == ops.OPTYPE.RESHAPE and len(sizes) == 4:
            stride = math.prod(sizes[2:])
            for source in node.inputs:
                for dep, reverse in _between(source, node):
                    flat = index_mapping._FlattenIndexMapping(stride, reverse)
                    dep.index_mapping[0] = flat if stride > 1 else None
        if node.type == ops.OPTYPE.CONCAT:
            index_mapping.update_concat_index_mapping(graph, node)
            widths = node.module.concat_sizes
            read = shape_infer.infer_in_channels_recursively(graph, node, [0])
            if not widths or None in widths or not read or read == sum(widths) or read % sum(widths):
                continue
            offsets = [0, *accumulate(widths)]
            node.module.offsets = offsets
            for place, source in enumerate(node.inputs):
                for dep, reverse in _between(source, node):
                    dep.index_mapping[1] = index_mapping._ConcatIndexMapping(offsets[place : place + 2], reverse)


def _between(source: Any, target: Any) -> Iterator[tuple[Any, bool]]:
    yield from ((dep, False) for dep in source.dependencies if dep.target is target)
    yield from ((dep, True) for dep in target.dependencies if dep.target is source)
