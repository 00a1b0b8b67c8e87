"""Whole channels of a net: which belong together, how much they matter, and a net without some of them."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.nets.attention1d import TemporalAttentionPool
from lightning_modules.nets.cnn_vit import SelfAttention

IMPORTANCES = ("magnitude", "taylor", "bn_scale")
SCOPES = ("layer", "global")
# What stays as it is, with a simpler map of the same shape for the trace. Heads share their channels in order: one
# channel less would move all that follow to another head.
ATTENTION: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    TemporalAttentionPool: lambda features: features.mean((2, 3)),
    SelfAttention: lambda tokens: tokens,
}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_TREATED = (nn.Conv1d, nn.Conv2d, nn.Linear, *_NORMS)


@dataclass(frozen=True)
class Group:
    """Channels that can only go together: a layer's outputs, and whoever adds to, norms or reads them.

    Attributes
    ----------
    layer : str
        Name of the module whose output channels are counted.
    scores : Tensor of shape (channels,)
        How much each channel matters, with mean 1.
    """

    layer: str
    scores: Tensor

    @property
    def width(self) -> int:
        """Channels."""
        return len(self.scores)


def find_groups(net: nn.Module, example: Tensor, importance: str, protect: Sequence[str] = ()) -> list[Group]:
    """Find the channels that may go, scored.

    Those that feed or lie in an attention, the logits, and what `protect` names stay.

    Parameters
    ----------
    net : nn.Module
        In eval mode; its weights hold gradients where `importance` is "taylor".
    example : Tensor of shape (batch, leads, time)
        A window.
    importance : {"magnitude", "taylor", "bn_scale"}
        Sum of squares of the weights; change of the loss to first order (Molchanov et al. 2019, doi
        10.1109/CVPR.2019.01152); scale of the batch norm (Liu et al. 2017, doi 10.1109/ICCV.2017.298).
    protect : sequence of str
        Names of modules.

    Raises
    ------
    ValueError
        If a layer cannot be treated, `protect` names none, or a layer has no batch norm that could be asked.
    """
    score = _make_score(importance)
    fixed, logits = _find_protected(net, protect), _find_last(net, example)
    graph = _build_graph(net, example)
    groups: list[Group] = []
    visited: set[nn.Module] = set()
    for name, layer in list(net.named_modules()):
        if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)) or layer in visited | fixed:
            continue
        # One channel tells who belongs together; all of them take long behind an attention.
        deps = [dep for dep, _ in _group_of(graph, layer, [0])]
        outputs = {dep.target.module for dep in deps if graph.is_out_channel_pruning_fn(dep.handler)}
        visited |= outputs
        if logits in outputs or fixed & {dep.target.module for dep in deps}:
            continue
        scores = score(_group_of(graph, layer, list(range(_width(layer)))))
        if scores is None:
            raise ValueError(f"layer {name!r} has no batch norm, so importance=bn_scale cannot score it: use magnitude")
        groups.append(Group(name, scores.detach().float().cpu()))
    return groups


def choose_channels(groups: Sequence[Group], ratio: float, scope: str, round_to: int) -> dict[str, list[int]]:
    """Choose the channels to drop, by layer.

    Widths that change become a multiple of `round_to`, and no width falls below `round_to`.

    Parameters
    ----------
    groups : sequence of Group
    ratio : float
        Share of the channels to drop, 0 to 1.
    scope : {"layer", "global"}
        The share of every group, or of all channels together, where wide layers may lose more than narrow ones.
    round_to : int

    Returns
    -------
    dict of str to list of int
        Layers that keep all channels are left out.
    """
    if scope == "global":
        scores = torch.cat([group.scores for group in groups])
        gone = torch.zeros(len(scores), dtype=torch.bool)
        gone[scores.argsort(stable=True)[: round(ratio * len(scores))]] = True
        losses = [int(part.sum()) for part in gone.split([group.width for group in groups])]
    else:
        losses = [round(ratio * group.width) for group in groups]
    drops = {}
    for group, loss in zip(groups, losses, strict=True):
        left = _round_width(group.width, group.width - loss, round_to)
        if left < group.width:
            drops[group.layer] = sorted(group.scores.argsort(stable=True)[: group.width - left].tolist())
    return drops


def cut_channels(net: nn.Module, example: Tensor, drops: Mapping[str, Sequence[int]]) -> nn.Module:
    """Give a copy of a net without some channels: an ordinary net with smaller layers.

    Parameters
    ----------
    net : nn.Module
    example : Tensor of shape (batch, leads, time)
    drops : mapping of str to sequence of int
        Output channels to drop, by layer of a `Group`.
    """
    layout = _memory_format(net)
    smaller = copy.deepcopy(net)
    smaller.zero_grad(set_to_none=True)
    training = smaller.training
    graph = _build_graph(smaller.eval(), example)
    for layer, channels in drops.items():
        _group_of(graph, smaller.get_submodule(layer), list(channels)).prune()
    return smaller.train(training).to(memory_format=layout)  # type: ignore[call-overload]


def count_macs(net: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of a net for one window; on the meta device nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(example[:1])
    return counter.get_total_flops() // 2


def count_bytes(net: nn.Module) -> int:
    """Bytes of a net's trainable values."""
    return sum(value.numel() * value.element_size() for value in net.parameters())


def _make_score(importance: str) -> Any:
    from torch_pruning.pruner import importance as known

    classes = {
        "magnitude": known.GroupMagnitudeImportance,
        "taylor": known.GroupTaylorImportance,
        "bn_scale": known.BNScaleImportance,
    }
    return classes[importance]()


def _find_protected(net: nn.Module, protect: Sequence[str]) -> set[nn.Module]:
    """Collect attentions and what `protect` names; refuse other layers that nobody can treat."""
    modules = dict(net.named_modules())
    unknown = [name for name in protect if name not in modules]
    if unknown:
        raise ValueError(f"protect names {unknown!r}, which this net lacks: expected some of {sorted(modules)[1:]!r}")
    fixed = {
        inner
        for name, module in modules.items()
        if name in protect or type(module) in ATTENTION
        for inner in module.modules()
    }
    for name, module in modules.items():
        if module in fixed or not list(module.parameters(recurse=False)):
            continue
        if not isinstance(module, _TREATED) or getattr(module, "groups", 1) not in (
            1,
            getattr(module, "in_channels", 1),
        ):
            raise ValueError(
                f"layer {name!r} ({module}) cannot be pruned by channels: list it under protect, so that it and its"
                " neighbours keep their widths, or choose another model"
            )
    return fixed


def _find_last(net: nn.Module, example: Tensor) -> nn.Module:
    """Give the layer with weights that runs last: its outputs are the logits."""
    ran: list[nn.Module] = []
    layers = [module for module in net.modules() if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(lambda module, *_: ran.append(module)) for layer in layers]
    try:
        with torch.no_grad():
            net(example)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise ValueError(f"{type(net).__name__} holds no convolution and no linear layer: there is no channel to prune")
    return ran[-1]


def _build_graph(net: nn.Module, example: Tensor) -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise ImportError("structured pruning needs Torch-Pruning: pip install torch-pruning") from error
    for value in net.parameters():
        value.requires_grad_(True)
    with ExitStack() as stack:
        # Parameters of no layer, as an attention's queries: they lie in what stays.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Unwrapped parameters detected")
        for module in net.modules():
            if type(module) in ATTENTION:
                stack.enter_context(_standing_in(module))
        return torch_pruning.DependencyGraph().build_dependency(net, example)


@contextmanager
def _standing_in(attention: nn.Module) -> Iterator[None]:
    """Let an attention answer with a simpler map that its first layer reads.

    The trace then shows who feeds it; through its matrix products Torch-Pruning would count for minutes.
    """
    first = next(layer for layer in attention.modules() if isinstance(layer, nn.Conv2d))
    simpler = ATTENTION[type(attention)]
    attention.forward = lambda features: simpler(features) + first(features).mean()  # type: ignore[method-assign]
    try:
        yield
    finally:
        del attention.forward


def _group_of(graph: Any, layer: nn.Module, channels: Sequence[int]) -> Any:
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


def _width(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels  # type: ignore[return-value]


def _round_width(width: int, left: int, round_to: int) -> int:
    """Nearest multiple of `round_to` to `left`, at least one of them, at most `width`."""
    if left >= width:
        return width
    return min(max(round(left / round_to), 1) * round_to, width)


def _memory_format(net: nn.Module) -> torch.memory_format:
    """Layout of a net's convolutions."""
    last = torch.channels_last
    weights = [value for value in net.parameters() if value.ndim == 4 and not value.is_contiguous()]
    return last if any(value.is_contiguous(memory_format=last) for value in weights) else torch.contiguous_format
