"""Cross-layer equalisation (Nagel et al. 2019, doi 10.1109/ICCV.2019.00141): the same net with more even weights."""

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

_LAYERS = ("conv1d", "conv2d", "linear")
# A positive factor per channel passes through all of these; a flattened map keeps its channels if it has one position.
_PASSES = (
    "relu",
    "relu_",
    "max_pool1d",
    "max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "dropout",
)
_MAX_FACTOR = 100.0


@dataclass(frozen=True)
class Pair:
    """Two layers in a row, by module name, with the batch norm between them if there is one."""

    first: str
    norm: str | None
    second: str


def equalize_layers(net: nn.Module, example: Tensor, n_rounds: int = 20) -> list[Pair]:
    """Scale channels between two layers in a row so that both use the same range, in place.

    A channel's output is divided by s and the weights that read it are multiplied by s: after a ReLU the net computes
    the same, while the weights of all channels come closer to each other, so that one scale serves them. Layers that
    several others read, or that meet in an addition, are left as they are.

    Parameters
    ----------
    net : nn.Module
        In float32, on the CPU.
    example : Tensor of shape (batch, leads, time)
        At least two windows.
    n_rounds : int
        Passes over all pairs; ends before where nothing moves any more.

    Returns
    -------
    list of Pair

    Raises
    ------
    ValueError
        If the net has no two layers in a row.
    """
    pairs = find_pairs(net, example)
    if not pairs:
        raise ValueError(f"equalize: {type(net).__name__} has no two layers in a row with only ReLU or pools between")
    with torch.no_grad():
        for _ in range(n_rounds):
            if max(_equalize(net, pair) for pair in pairs) < 1e-3:
                break
    return pairs


def find_pairs(net: nn.Module, example: Tensor) -> list[Pair]:
    """Find layers in a row in the exported graph of the net; weights that are used twice are left out."""
    program = torch.export.export(copy.deepcopy(net).eval(), (example,))
    owners = {name: weight.rpartition(".")[0] for name, weight in program.graph_signature.inputs_to_parameters.items()}
    nodes = [node for node in program.graph.nodes if _kind(node) in _LAYERS]
    used = Counter(node.args[1].name for node in nodes)
    pairs = []
    for node in nodes:
        found = _follow(node)
        if found is None:
            continue
        norm, second = found
        names = [item.args[1].name for item in (node, second)]
        if all(used[name] == 1 and name in owners for name in names):
            pairs.append(Pair(owners[names[0]], owners[norm.args[1].name] if norm else None, owners[names[1]]))
    return pairs


def _kind(node: Any) -> str:
    """Name of the operator of a graph node, such as conv2d."""
    return node.target.__name__.partition(".")[0] if node.op == "call_function" else ""


def _follow(node: Any) -> tuple[Any, Any] | None:
    """Follow the only way from a layer to the next one: the norm between, if any, and that layer."""
    norm, bent = None, False
    while len(node.users) == 1:
        (reader,) = node.users
        kind = _kind(reader)
        if kind in _LAYERS:
            grouped = kind != "linear" and len(reader.args) > 6 and reader.args[6] != 1
            flat = kind != "linear" or reader.args[0].meta["val"].ndim == 2
            return (norm, reader) if reader.args[0] is node and flat and not grouped else None
        if kind == "batch_norm":
            if norm is not None or bent or reader.args[1] is None:
                return None
            norm = reader
        elif kind in ("flatten", "view", "reshape"):
            if node.meta["val"].shape[2:].numel() != 1:
                return None
        elif kind not in _PASSES:
            return None
        bent |= kind.startswith("relu")
        node = reader
    return None


def _equalize(net: nn.Module, pair: Pair) -> float:
    """Equalise one pair; gives how far the largest factor is from 1."""
    first, second = net.get_submodule(pair.first), net.get_submodule(pair.second)
    weight, reading = first.get_parameter("weight"), second.get_parameter("weight")
    scale = torch.ones(len(weight))
    carrier: nn.Module = first
    if pair.norm is not None:
        carrier = net.get_submodule(pair.norm)
        variance, eps = carrier.get_buffer("running_var"), cast(float, carrier.eps)
        scale = carrier.get_parameter("weight").abs() / (variance + eps).sqrt()
    ours = weight.abs().flatten(1).amax(dim=1) * scale
    theirs = reading.abs().transpose(0, 1).flatten(1).amax(dim=1)
    factor = (ours / theirs).sqrt().clamp(1 / _MAX_FACTOR, _MAX_FACTOR)
    factor = torch.where((ours > 0) & (theirs > 0), factor, torch.ones_like(factor))
    for value in carrier.parameters(recurse=False):
        value.div_(factor.view(-1, *[1] * (value.ndim - 1)))
    reading.mul_(factor.view(1, -1, *[1] * (reading.ndim - 2)))
    return float((factor - 1).abs().max())
