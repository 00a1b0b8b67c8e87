"""What a net answers and the feature maps inside it: (batch, channels, time), whatever the layer's own shape."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Answer:
    """What a net says about a batch.

    Attributes
    ----------
    logits : Tensor
        (batch, classes).
    features : Tensor or None
        Map of one layer, (batch, channels, time); one time step where it was averaged over the window.
    exclusive : bool
        Whether every window has exactly one class.
    """

    logits: Tensor
    features: Tensor | None = None
    exclusive: bool = False

    @property
    def map(self) -> Tensor:
        """The map (batch, channels, time) of a part that asked for one."""
        if self.features is None:
            raise ValueError("this answer holds no feature map: the part of the loss names no layer")
        return self.features


def to_map(output: Tensor) -> Tensor:
    """Lay a layer's output (batch, channels, ...) out as (batch, channels, time), in float32."""
    return output.float().flatten(2) if output.ndim > 2 else output.float().unsqueeze(2)


def match_time(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Average the longer of two maps (batch, channels, time) over time until both have the shorter's length."""
    length = min(first.shape[-1], second.shape[-1])
    return functional.adaptive_avg_pool1d(first, length), functional.adaptive_avg_pool1d(second, length)


class Tap:
    """Keep what some layers of a net put out in its latest forward pass; a context manager.

    Parameters
    ----------
    net : nn.Module
    layers : iterable of str
        Names of its modules, such as ``features`` or ``features.4``.
    """

    def __init__(self, net: nn.Module, layers: Iterable[str]) -> None:
        self._maps: dict[str, Tensor] = {}
        self._handles = [
            net.get_submodule(name).register_forward_hook(partial(self._keep, name)) for name in sorted(set(layers))
        ]

    def _keep(self, name: str, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self._maps[name] = to_map(output)

    def take(self) -> dict[str, Tensor]:
        """Give the maps by layer, and forget them: a map holds the graph behind it."""
        maps = dict(self._maps)
        self._maps.clear()
        return maps

    def __enter__(self) -> "Tap":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._maps.clear()


def find_layer(net: nn.Module, layer: str | None, signal: Tensor, key: str) -> tuple[str, int]:
    """Name a layer and count its channels.

    Parameters
    ----------
    net : nn.Module
    layer : str or None
        Name of a module; None takes the last direct child whose output still runs over time: the map before pooling.
    signal : Tensor
        Windows (batch, leads, time) that the net is tried on.
    key : str
        Where the name comes from, for messages.

    Returns
    -------
    str, int

    Raises
    ------
    ValueError
        If there is no such layer, or none whose output is a map.
    """
    children = [name for name, _ in net.named_children()]
    names = [layer] if layer is not None else children
    if unknown := set(names) - {name for name, _ in net.named_modules() if name}:
        raise ValueError(f"{key} is {unknown.pop()!r}, not a layer of {type(net).__name__}; it has {children}")
    training, device = net.training, next(net.parameters()).device
    with Tap(net, names) as tap, torch.no_grad():
        net.eval()(signal.to(device))
        found = tap.take()
    net.train(training)
    # In the order of execution, because that is how the hooks were called.
    maps = {name: value for name, value in found.items() if layer is not None or value.shape[-1] > 1}
    if not maps:
        raise ValueError(f"{key} is {layer!r}: no child of {type(net).__name__} puts out a map; name one of its layers")
    name, value = list(maps.items())[-1]
    return name, value.shape[1]
