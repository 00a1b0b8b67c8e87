"""Whole channels of a net: which belong together, how much they matter, and a net without some of them."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compression.channel_graph import ATTENTION, build_graph, group_of, import_torch_pruning, shift_readers

IMPORTANCES = ("magnitude", "taylor", "bn_scale")
SCOPES = ("layer", "global")
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
    in_thirds : bool
        Whether a temporal shift treats each third of the channels in its own way: each loses its share then, so that
        a channel that stays keeps its part.
    """

    layer: str
    scores: Tensor
    in_thirds: bool = False

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
    example : Tensor of shape (batch, leads, time), or of a clip
        A window.
    importance : {"magnitude", "taylor", "bn_scale"}
        Sum of squares of the weights; change of the loss to first order (Molchanov et al. 2019, doi
        10.1109/CVPR.2019.01152); scale of the batch norm (Liu et al. 2017, doi 10.1109/ICCV.2017.298).
    protect : sequence of str
        Names of modules.

    Raises
    ------
    ValueError
        If a layer cannot be treated or does not run, `protect` names none, or a layer has no batch norm that could be
        asked.
    """
    score, readers = _make_score(importance), shift_readers(net)
    fixed, logits = _find_protected(net, protect), _find_last(net, example)
    graph = build_graph(net, example)
    groups: list[Group] = []
    visited: set[nn.Module] = set()
    for name, layer in list(net.named_modules()):
        if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)) or layer in visited | fixed:
            continue
        # One channel tells who belongs together; all of them take long behind an attention.
        deps = [dep for dep, _ in group_of(graph, layer, [0])]
        outputs = {dep.target.module for dep in deps if graph.is_out_channel_pruning_fn(dep.handler)}
        visited |= outputs
        if logits in outputs or fixed & {dep.target.module for dep in deps}:
            continue
        scores = score(group_of(graph, layer, list(range(_width(layer)))))
        if scores is None:
            raise ValueError(f"layer {name!r} has no batch norm, so importance=bn_scale cannot score it: use magnitude")
        inputs = {dep.target.module for dep in deps if graph.is_in_channel_pruning_fn(dep.handler)}
        groups.append(Group(name, scores.detach().float().cpu(), in_thirds=bool(inputs & readers)))
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
            drops[group.layer] = _drop_least(group, left)
    return {layer: channels for layer, channels in drops.items() if channels}


def _drop_least(group: Group, left: int) -> list[int]:
    """Channels that matter least, of all or of each third, for `left` of them to stay."""
    if not group.in_thirds:
        return sorted(group.scores.argsort(stable=True)[: group.width - left].tolist())
    before, after = _thirds(group.width), _thirds(left)
    if after[2] > before[2]:
        # One of three equal thirds cannot lose its only channel: the last one would have to gain one.
        return []
    drops, start = [], 0
    for had, keeps in zip(before, after, strict=True):
        order = group.scores[start : start + had].argsort(stable=True)
        drops += [start + channel for channel in order[: had - keeps].tolist()]
        start += had
    return sorted(drops)


def _thirds(width: int) -> tuple[int, int, int]:
    """Channels that a temporal shift takes from the next frame, from the one before, and from the frame itself."""
    return width // 3, width // 3, width - 2 * (width // 3)


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
    graph = build_graph(smaller.eval(), example)
    for layer, channels in drops.items():
        group_of(graph, smaller.get_submodule(layer), list(channels)).prune()
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
    known = import_torch_pruning().importance
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
    idle = [name for name, module in net.named_modules() if module in set(layers) - set(ran)]
    if idle:
        raise ValueError(
            f"layers {idle!r} do not run where the net answers, so nobody sees whose channels they read: prune a net"
            " without them, such as one with a single task"
        )
    return ran[-1]


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
